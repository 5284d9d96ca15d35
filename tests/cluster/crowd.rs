//! Many people at once, and a node that dies among them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::{join, join_all};
use rookery_client::rest::Span;
use rookery_protocol::rest::SendMessage;
use rookery_protocol::{ConversationId, Seq};
use rookery_test_support::{
    Device, Person, Record, SendFailure, TestCluster, eventually, new_message_id,
};

use crate::ROOKERY;

const PEOPLE: usize = 20;
/// Messages that everybody sends, over the socket and over REST in turn.
const MESSAGES: usize = 24;
/// The node that dies.
const DYING: usize = 1;

/// Somebody with two devices and the conversations they are in.
struct Member {
    person: Person,
    devices: [Device; 2],
    conversations: Vec<ConversationId>,
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_a_node_dies_under_traffic() {
    let cluster = TestCluster::start(ROOKERY, 3).await;
    let crowd = gather(&cluster).await;
    let sent = AtomicUsize::new(0);
    let half = PEOPLE * MESSAGES / 2;
    let talking = join_all(crowd.iter().map(|member| talk(member, &sent)));
    let dying = async {
        eventually("half of the messages are sent", async || {
            sent.load(Ordering::SeqCst) >= half
        })
        .await;
        cluster.node(DYING).kill().await;
        join_all(
            crowd
                .iter()
                .flat_map(|m| &m.devices)
                .enumerate()
                .map(|(number, device)| move_over(&cluster, device, [0, 2][number % 2])),
        )
        .await;
    };
    let (said, ()) = join(talking, dying).await;
    let devices = crowd.iter().flat_map(|member| &member.devices);
    let moved = devices
        .filter(|device| device.read(Record::connection) > 1)
        .count();
    assert!(
        moved >= PEOPLE / 2,
        "a third of the devices were on that node: {moved}"
    );
    check(&cluster, &crowd, said.into_iter().flatten().collect()).await;
}

/// Twenty people with two devices each on different nodes; a direct conversation with the next one
/// and groups of up to eight.
async fn gather(cluster: &TestCluster) -> Vec<Member> {
    let names: Vec<String> = (0..PEOPLE)
        .map(|number| format!("person{number}"))
        .collect();
    let people = join_all(names.iter().map(|name| cluster.register(name))).await;
    let mut crowd = Vec::new();
    for (number, person) in people.into_iter().enumerate() {
        let (one, other) = (cluster.node(number), cluster.node(number + 1 + number % 2));
        let devices = [person.connect(one).await, person.connect(other).await];
        crowd.push(Member {
            person,
            devices,
            conversations: Vec::new(),
        });
    }
    for number in 0..PEOPLE {
        let next = (number + 1) % PEOPLE;
        let id = crowd[number].person.direct(&crowd[next].person);
        crowd[number].conversations.push(id);
        crowd[next].conversations.push(id);
        crowd[number].devices[0]
            .send(&crowd[next].person, &format!("hello {next}"))
            .await;
    }
    for size in [3, 5, 8] {
        let numbers: Vec<usize> = (0..size).map(|step| (size + step * 2) % PEOPLE).collect();
        let others: Vec<&Person> = numbers[1..].iter().map(|n| &crowd[*n].person).collect();
        let id = crowd[numbers[0]]
            .person
            .group(&format!("group of {size}"), &others)
            .await;
        for number in numbers {
            crowd[number].conversations.push(id);
        }
    }
    crowd
}

/// Says everything one has to say, in all conversations in turn; returns what was said.
async fn talk(member: &Member, sent: &AtomicUsize) -> Vec<(ConversationId, String)> {
    let mut said = Vec::new();
    for number in 0..MESSAGES {
        let id = member.conversations[number % member.conversations.len()];
        let text = format!("{} says {number}", member.person.name());
        match number % 3 {
            2 => request_surely(&member.person, id, &text).await,
            device => send_surely(&member.devices[device], id, &text).await,
        }
        sent.fetch_add(1, Ordering::SeqCst);
        said.push((id, text));
    }
    said
}

/// Repeats a send with its `message_id` until it is acked, through whatever connection there is.
async fn send_surely(device: &Device, to: ConversationId, text: &str) {
    let id = new_message_id();
    loop {
        match device.try_send(id, to, text).await {
            Ok(_) => return,
            Err(SendFailure::Closed(_)) => device.expect_open().await,
            Err(SendFailure::Refused(error)) => assert!(error.retryable, "{text:?}: {error:?}"),
        }
    }
}

async fn request_surely(person: &Person, to: ConversationId, text: &str) {
    let message = SendMessage {
        message_id: new_message_id(),
        content: text.into(),
        reply_to: None,
        metadata: None,
    };
    while let Err(error) = person.send_message(to, &message).await {
        assert!(error.is_retryable(), "{text:?}: {error}");
    }
}

/// Brings a device of the dead node to another one.
async fn move_over(cluster: &TestCluster, device: &Device, to: usize) {
    let node = device.ready().await.node_id;
    if node == cluster.node(DYING).name() {
        device.expect_close().await;
        device.resume_on(cluster.node(to)).await;
    }
}

/// Every device of every member has every entry, once and in order, and the log holds exactly what
/// was said.
async fn check(cluster: &TestCluster, crowd: &[Member], said: Vec<(ConversationId, String)>) {
    for member in crowd {
        for id in &member.conversations {
            let api = member.person.at(cluster.node(0));
            let last = api
                .conversation(*id)
                .await
                .expect("the conversation")
                .last_seq;
            for device in &member.devices {
                device.expect_all(*id, Seq(1), last).await;
                device.seen_once_in_order(*id);
            }
            let page = api
                .history(*id, Span::After(Seq(0)), 200)
                .await
                .expect("history");
            assert!(!page.has_more, "more was stored than sent");
            let stored: Vec<&str> = page.items.iter().map(|m| m.content.as_str()).collect();
            let once: BTreeSet<&str> = stored.iter().copied().collect();
            assert_eq!(stored.len(), once.len(), "stored twice: {stored:#?}");
            let lost: Vec<_> = said
                .iter()
                .filter(|(to, text)| to == id && !once.contains(&**text))
                .collect();
            assert!(lost.is_empty(), "acknowledged and lost: {lost:#?}");
            // The greeting of a direct conversation, or the notice of a group.
            let expected = said.iter().filter(|(to, _)| to == id).count() + 1;
            assert_eq!(stored.len(), expected, "stored but never sent: {stored:#?}");
        }
    }
}
