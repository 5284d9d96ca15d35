//! What a link does to two parties that echo each other.

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::time::{Instant, timeout};

use super::*;

/// Long enough for anything that does happen, and short enough to wait for what must not.
const A_WHILE: Duration = Duration::from_millis(200);

async fn echoing() -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                copy(&mut from, &mut to).await.ok();
            });
        }
    });
    Proxy::start(target).await.unwrap()
}

async fn echo(stream: &mut TcpStream, text: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(text).await?;
    let mut echoed = vec![0; text.len()];
    stream.read_exact(&mut echoed).await?;
    Ok(echoed)
}

#[tokio::test]
async fn what_passes_is_whole_and_an_end_passes_too() {
    let proxy = echoing().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let much = vec![7; 1_000_000];
    let (mut from, mut to) = stream.split();
    let mut echoed = Vec::new();
    let send = async {
        to.write_all(&much).await?;
        to.shutdown().await
    };
    let (sent, read) = tokio::join!(send, from.read_to_end(&mut echoed));
    assert!(sent.is_ok() && read.is_ok() && echoed == much);
    assert_eq!(proxy.counts().bytes, 2_000_000);
}

#[tokio::test]
async fn a_black_hole_keeps_all_connections_and_gives_back_what_was_sent() {
    let proxy = echoing().await;
    let mut old = TcpStream::connect(proxy.address()).await.unwrap();
    echo(&mut old, b"before").await.unwrap();
    proxy.set(Mode::Blackhole);
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    for stream in [&mut old, &mut new] {
        let lost = timeout(A_WHILE, echo(stream, b"into the dark")).await;
        assert!(lost.is_err(), "{lost:?}");
    }
    proxy.heal();
    for stream in [&mut old, &mut new] {
        let mut late = [0; 13];
        stream.read_exact(&mut late).await.unwrap();
        assert_eq!(&late, b"into the dark");
    }
}

#[tokio::test]
async fn cuts_and_resets_end_connections_each_in_its_way() {
    let proxy = echoing().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    echo(&mut stream, b"before").await.unwrap();
    assert_eq!(proxy.reset(), 1);
    let broken = stream.read_u8().await.unwrap_err();
    assert_eq!(broken.kind(), io::ErrorKind::ConnectionReset);

    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    echo(&mut stream, b"again").await.unwrap();
    proxy.set(Mode::Cut);
    let closed = stream.read_u8().await.unwrap_err();
    assert_eq!(closed.kind(), io::ErrorKind::UnexpectedEof);
    let refused = async || TcpStream::connect(proxy.address()).await.is_err();
    crate::eventually("connections are refused", refused).await;
    proxy.heal();
    let taken = async || TcpStream::connect(proxy.address()).await.is_ok();
    crate::eventually("connections are taken", taken).await;
    assert_eq!((proxy.counts().resets, proxy.counts().cuts), (1, 1));
}

#[tokio::test]
async fn slow_links_take_their_time() {
    let proxy = echoing().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let fixed = Duration::from_millis(50);
    proxy.set(Mode::Delay {
        fixed,
        jitter: Duration::from_millis(5),
    });
    let began = Instant::now();
    echo(&mut stream, b"there and back").await.unwrap();
    assert!(began.elapsed() >= 2 * fixed);

    let bytes_per_second = 10_000;
    proxy.set(Mode::Throttle { bytes_per_second });
    let began = Instant::now();
    echo(&mut stream, &[7; 2_000]).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(200));
}
