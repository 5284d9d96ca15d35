//! A way from one node to a sentinel. Sentinels name servers by the addresses that all share; where a
//! node has ways of its own to these servers, this says those instead, as a router between two
//! networks does.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use anyhow::Result;
use bytes::{Bytes, BytesMut};

use super::Proxy;
use super::lens::{Pieces, Protocol};
use super::line::Passage;
use super::link::Broken;
use super::resp::frame_length;

/// Between one node and one sentinel.
pub struct SentinelProxy {
    proxy: Proxy,
}

/// By which ports the node knows what sentinels know by others; both have five digits.
#[derive(Clone, Default)]
pub(crate) struct Names(Arc<OnceLock<Vec<(u16, u16)>>>);

impl SentinelProxy {
    /// `names` may be told later, but before anybody connects.
    pub(crate) async fn start(sentinel: SocketAddr, names: &Names) -> Result<Self> {
        let protocol = Protocol::Sentinel(names.clone());
        let proxy = Proxy::with_protocol(sentinel, protocol).await?;
        Ok(Self { proxy })
    }
}

/// Modes, resets and counts, as of any link.
impl Deref for SentinelProxy {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        &self.proxy
    }
}

impl Names {
    /// The first time counts.
    pub(crate) fn tell(&self, ports: Vec<(u16, u16)>) {
        let _ = self.0.set(ports);
    }

    /// The same frame with the node's own ports. Ports are texts of their own in it.
    fn translate(&self, frame: &[u8]) -> Bytes {
        let mut frame = frame.to_vec();
        let mut lines = 0;
        while let Some(length) = frame[lines..].windows(2).position(|end| end == b"\r\n") {
            let line = &mut frame[lines..lines + length];
            let told = self.0.get().into_iter().flatten();
            let own = told
                .map(|(known, own)| (known.to_string(), own.to_string()))
                .find(|(known, own)| known.as_bytes() == &*line && known.len() == own.len());
            if let Some((_, own)) = own {
                line.copy_from_slice(own.as_bytes());
            }
            lines += length + 2;
        }
        frame.into()
    }
}

pub(super) fn look_at_replies(arrived: &mut BytesMut, names: &Names) -> Result<Pieces, Broken> {
    let mut pieces = Pieces::new();
    while let Some(length) = frame_length(arrived).map_err(|_| Broken::Gone)? {
        let frame = arrived.split_to(length);
        pieces.push((names.translate(&frame), Passage::Now));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_said_as_the_node_knows_them() {
        let names = Names::default();
        names.tell(vec![(20_001, 30_001), (20_002, 20_001)]);
        let told = "*2\r\n$9\r\n127.0.0.1\r\n$5\r\n20001\r\n+20002 it is\r\n$5\r\n200";
        let mut arrived = BytesMut::from(told);
        let pieces = look_at_replies(&mut arrived, &names).unwrap();
        let pieces: Vec<&[u8]> = pieces.iter().map(|(bytes, _)| bytes.as_ref()).collect();
        let master = "*2\r\n$9\r\n127.0.0.1\r\n$5\r\n30001\r\n";
        assert_eq!(pieces, [master.as_bytes(), b"+20002 it is\r\n"]);
        assert_eq!(arrived, "$5\r\n200", "half a frame waits");
        let other = names.translate(b"$5\r\n20002\r\n");
        assert_eq!(other, "$5\r\n20001\r\n", "each is translated once");
    }
}
