//! Stories of edits, deletions and reactions, for a cluster of any size.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use rookery_client::rest::Span;
use rookery_protocol::event::{ErrorEvent, MessageChanged, ServerEvent};
use rookery_protocol::message::{Message, MessageStatus};
use rookery_protocol::{ConversationId, ErrorCode, Seq};
use rookery_test_support::{Device, PATIENCE, Person, TestCluster, change_of};

/// What this device shows of a conversation after all that it received; one's own messages as far
/// as the server told them.
fn shown(device: &Device, room: ConversationId) -> BTreeMap<Seq, Message> {
    let mut shown = BTreeMap::new();
    let mut take = |message: &Message| {
        let message = Message {
            status: None,
            ..message.clone()
        };
        shown.insert(message.seq, message);
    };
    device.read(|record| {
        for event in record.all_events() {
            match event {
                ServerEvent::MessageNew(new) if new.message.conversation_id == room => {
                    take(&new.message);
                }
                ServerEvent::MessageBatch(batch) if batch.conversation_id == room => {
                    batch.messages.iter().for_each(&mut take);
                    batch.changed.iter().for_each(&mut take);
                }
                event => {
                    let change = change_of(event).filter(|c| c.conversation_id == room);
                    change.iter().for_each(|change| take(&change.message));
                }
            }
        }
    });
    shown
}

/// Waits until the device has been told everything up to `seq`.
async fn expect_up_to(device: &Device, room: ConversationId, seq: Seq) {
    let what = format!("everything up to {seq}");
    device
        .until(&what, PATIENCE, |record| {
            (record.cursors().get(&room) >= Some(&seq)).then_some(())
        })
        .await;
}

/// What the device shows is what the store has.
async fn agrees(person: &Person, device: &Device, room: ConversationId) {
    let history = person.history(room, Span::Newest, 200).await;
    let stored = history.expect("a page").items;
    let shown = shown(device, room);
    for message in stored {
        let message = Message {
            status: None,
            ..message
        };
        if let Some(shown) = shown.get(&message.seq) {
            assert_eq!(*shown, message, "as {} sees it", person.name());
        }
    }
}

fn refused_with(outcome: Result<(), ErrorEvent>) -> ErrorCode {
    outcome.expect_err("refused").code
}

fn emojis(change: &MessageChanged) -> Vec<(&str, i64)> {
    let reactions = change.message.reactions.iter();
    reactions
        .map(|one| (one.emoji.as_str(), one.count))
        .collect()
}

async fn saw_all_changes(device: &Device, room: ConversationId, people: [&Person; 3]) {
    let [ann, bob, carol] = people.map(Person::id);
    for (seq, expected) in [
        (4, "message.edited"),
        (5, "reaction.added"),
        (6, "reaction.added"),
        (7, "reaction.removed"),
        (8, "message.deleted"),
    ] {
        device.expect_change(room, Seq(seq)).await;
        let name = device.read(|record| {
            let mut events = record.events();
            let it = events.find(|e| change_of(e).is_some_and(|change| change.seq == Seq(seq)));
            it.map(ServerEvent::type_name)
        });
        assert_eq!(name, Some(expected));
    }
    let edited = device.expect_change(room, Seq(4)).await;
    assert_eq!((edited.by, edited.message.seq), (ann, Seq(2)));
    assert_eq!(edited.message.content, "hello");
    assert!(edited.message.edited_at.is_some());
    let is_own = device.person().id() == ann;
    assert_eq!(edited.message.status.is_some(), is_own);
    let now = device.expect_change(room, Seq(7)).await;
    assert_eq!((now.by, emojis(&now)), (bob, vec![("👍", 1)]));
    assert_eq!(now.message.reactions[0].user_ids, [carol]);
    let gone = device.expect_change(room, Seq(8)).await;
    assert_eq!(
        (gone.message.seq, gone.message.content.as_str()),
        (Seq(3), "")
    );
    assert!(gone.message.deleted_at.is_some());
}

pub(crate) async fn changes_reach_every_device_in_their_place(cluster: TestCluster) {
    let [ann, bob, carol] = cluster.register_all(["ann", "bob", "carol"]).await;
    let room = ann.group("room", &[&bob, &carol]).await;
    let anns = [
        ann.connect(cluster.node(0)).await,
        ann.connect(cluster.node(1)).await,
    ];
    let bobs = [
        bob.connect(cluster.node(1)).await,
        bob.connect(cluster.node(2)).await,
    ];
    let carols = carol.connect(cluster.node(2)).await;
    anns[0].send(room, "helo").await;
    bobs[0].send(room, "sory").await;
    anns[1]
        .edit(room, Seq(2), "hello")
        .await
        .expect("ann's own");
    bobs[1]
        .react(room, Seq(2), "👍", true)
        .await
        .expect("bob may");
    carols
        .react(room, Seq(2), "👍", true)
        .await
        .expect("carol may");
    bobs[0]
        .react(room, Seq(2), "👍", false)
        .await
        .expect("bob's own");
    bobs[0].delete(room, Seq(3)).await.expect("bob's own");
    carols.send(room, "after").await;

    for device in anns.iter().chain(&bobs).chain([&carols]) {
        saw_all_changes(device, room, [&ann, &bob, &carol]).await;
        let has_sent_last = device.person().id() == carol.id();
        expect_up_to(device, room, Seq(if has_sent_last { 8 } else { 9 })).await;
        device.seen_once_in_order(room);
        agrees(device.person(), device, room).await;
    }
    let seen = ann.conversation(room).await.expect("a view");
    assert_eq!(seen.last_seq, Seq(9));
    assert_eq!(seen.unread_count, 2, "the deleted one keeps its place");
}

pub(crate) async fn a_change_tells_its_author_how_far_the_message_got(cluster: TestCluster) {
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let ack = anns.send(&bob, "hi").await;
    let room = ack.conversation_id;
    bobs.expect_message("hi").await;
    bobs.mark_read(room, ack.seq);
    anns.expect("bob's mark", |event| match event {
        ServerEvent::ReceiptRead(receipt) => (receipt.seq == ack.seq).then_some(()),
        _ => None,
    })
    .await;
    bobs.react(room, ack.seq, "❤", true).await.expect("bob may");
    let change = anns.expect_change(room, Seq(2)).await;
    assert_eq!(emojis(&change), [("❤️", 1)]);
    assert_eq!(change.message.status, Some(MessageStatus::Read));
    let bobs_own = bobs.expect_change(room, Seq(2)).await;
    assert_eq!(bobs_own.message.status, None, "not his message");
}

pub(crate) async fn a_device_that_was_away_gets_what_changed_as_it_is_now(cluster: TestCluster) {
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let room = ann.group("room", &[&bob]).await;
    for text in ["two", "three", "four"] {
        anns.send(room, text).await;
    }
    bobs.expect_message("four").await;
    bobs.cut().await;
    anns.edit(room, Seq(2), "two, then").await.expect("edited");
    anns.edit(room, Seq(2), "two, now").await.expect("edited");
    anns.react(room, Seq(3), "🎉", true).await.expect("reacted");
    anns.delete(room, Seq(4)).await.expect("deleted");
    anns.send(room, "nin").await;
    anns.edit(room, Seq(9), "nine").await.expect("edited");

    bobs.resume_on(cluster.node(2)).await;
    let batches: Vec<_> = bobs.read(|record| {
        let batch = |event: &ServerEvent| match event {
            ServerEvent::MessageBatch(batch) => Some(batch.clone()),
            _ => None,
        };
        record.events().filter_map(batch).collect()
    });
    let [batch] = &batches[..] else {
        panic!("{batches:?}");
    };
    let texts = |messages: &[Message]| -> Vec<(i64, String)> {
        let text = |message: &Message| (message.seq.0, message.content.clone());
        messages.iter().map(text).collect()
    };
    assert_eq!(
        texts(&batch.messages),
        [(9, "nine".to_owned())],
        "as it is now"
    );
    let mut changed = texts(&batch.changed);
    changed.sort();
    let expected = [(2, "two, now"), (3, "three"), (4, "")];
    assert_eq!(
        changed,
        expected.map(|(seq, text)| (seq, text.to_owned())),
        "each once"
    );
    assert_eq!(batch.to_seq, Seq(10));
    anns.edit(room, Seq(9), "nine!").await.expect("edited");
    let live = bobs.expect_change(room, Seq(11)).await;
    assert_eq!(live.message.content, "nine!");
    bobs.seen_once_in_order(room);
    agrees(&bob, &bobs, room).await;

    // Changes count for a cursor as messages do.
    bobs.cut().await;
    assert_eq!(bobs.read(|record| record.cursors()[&room]), Seq(11));
    let done = bobs.resume_on(cluster.node(0)).await;
    assert_eq!((done.count, done.reset.len()), (0, 0));
}

pub(crate) async fn who_joined_later_is_not_shown_an_old_message_by_its_change(
    cluster: TestCluster,
) {
    let [ann, bob, carol] = cluster.register_all(["ann", "bob", "carol"]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let carols = carol.connect(cluster.node(2)).await;
    let room = ann.secretive_group("room", &[&bob]).await;
    anns.send(room, "secret").await;
    ann.add_members(room, &[carol.id()]).await.expect("ann may");
    anns.send(room, "welcome").await;
    carols.expect_message("welcome").await;
    anns.edit(room, Seq(2), "still secret")
        .await
        .expect("edited");
    bobs.react(room, Seq(2), "🤫", true).await.expect("reacted");
    carols
        .react(room, Seq(4), "👋", true)
        .await
        .expect("reacted");
    anns.send(room, "for all").await;
    for device in [&anns, &bobs] {
        assert_eq!(
            device.expect_change(room, Seq(5)).await.message.content,
            "still secret"
        );
        assert_eq!(device.expect_change(room, Seq(6)).await.message.seq, Seq(2));
    }
    carols.expect_message("for all").await;
    assert_eq!(carols.expect_change(room, Seq(7)).await.message.seq, Seq(4));
    assert!(!shown(&carols, room).contains_key(&Seq(2)), "live");
    assert_eq!(
        refused_with(carols.react(room, Seq(2), "👀", true).await),
        ErrorCode::NotFound
    );

    carols.cut().await;
    anns.edit(room, Seq(2), "for ever").await.expect("edited");
    anns.edit(room, Seq(4), "welcome!").await.expect("edited");
    carols.resume_on(cluster.node(0)).await;
    expect_up_to(&carols, room, Seq(10)).await;
    let seen = shown(&carols, room);
    assert!(!seen.contains_key(&Seq(2)), "nor by a replay");
    assert_eq!(seen[&Seq(4)].content, "welcome!");
}

pub(crate) async fn the_same_reaction_from_many_devices_is_one(cluster: TestCluster) {
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let ack = anns.send(&bob, "hi").await;
    let room = ack.conversation_id;
    let mut bobs = Vec::new();
    for number in 0..5 {
        bobs.push(bob.connect(cluster.node(number)).await);
    }
    let spellings = ["❤", "❤️"].iter().cycle();
    let reactions = bobs.iter().zip(spellings);
    let outcomes = reactions.map(|(device, emoji)| device.react(room, ack.seq, emoji, true));
    for outcome in join_all(outcomes).await {
        outcome.expect("all are answered alike");
    }
    anns.send(room, "after").await;
    for device in &bobs {
        expect_up_to(device, room, Seq(3)).await;
    }
    let now = anns.expect_change(room, Seq(2)).await;
    assert_eq!(emojis(&now), [("❤️", 1)]);
    let page = ann.history(room, Span::Newest, 9).await.expect("a page");
    let seqs: Vec<i64> = page.items.iter().map(|message| message.seq.0).collect();
    assert_eq!(seqs, [1, 3], "one entry between the messages");
}

pub(crate) async fn all_agree_after_many_changes_at_once(cluster: TestCluster) {
    let [ann, bob, carol] = cluster.register_all(["ann", "bob", "carol"]).await;
    let room = ann.group("room", &[&bob, &carol]).await;
    let people = [&ann, &bob, &carol];
    let mut devices = Vec::new();
    for (number, person) in people.iter().enumerate() {
        devices.push(person.connect(cluster.node(number)).await);
    }
    let watching = ann.connect(cluster.node(2)).await;
    let talk = async |device: &Device, number: usize| {
        for round in 0..12 {
            let ack = device.send(room, &format!("{number} {round}")).await;
            let edit = device
                .edit(room, ack.seq, &format!("{number} {round}, again"))
                .await;
            edit.expect("one's own");
            let others = Seq(ack.seq.0 - 1);
            // Of a notice it is refused, and of an entry that is no message.
            let emoji = ["👍", "🎉", "❤️"][(number + round) % 3];
            device.react(room, others, emoji, round % 4 != 3).await.ok();
            device
                .react(room, ack.seq, "👀", true)
                .await
                .expect("one's own");
            if round % 5 == 4 {
                device.delete(room, ack.seq).await.expect("one's own");
            }
        }
    };
    let talks = devices.iter().enumerate();
    join_all(talks.map(|(number, device)| talk(device, number))).await;
    let last = ann.send_text(room, "the end").await.expect("sent");
    for device in devices.iter().chain([&watching]) {
        device.expect_message("the end").await;
        expect_up_to(device, room, last.seq).await;
        device.seen_once_in_order(room);
        agrees(device.person(), device, room).await;
    }
    let texts = |device: &Device| shown(device, room).len();
    assert_eq!(
        texts(&watching),
        3 * 12 + 1,
        "all messages, none of them twice"
    );
}
