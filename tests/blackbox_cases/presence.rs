//! Who is online, how they appear, and to whom.

use rookery_client::rest::PageRequest;
use rookery_protocol::user::{ChosenStatus, PresenceStatus};
use rookery_protocol::{ErrorCode, UserId};
use rookery_test_support::{Device, Person, TestCluster, eventually};

use PresenceStatus::{Away, Dnd, Offline, Online};

/// How somebody was shown to a device, one after the other.
fn shown(device: &Device, person: &Person) -> Vec<PresenceStatus> {
    let shown = device.read(|record| record.presences_of(person.id()));
    shown.into_iter().map(|presence| presence.status).collect()
}

pub(crate) async fn who_comes_and_goes_is_seen(cluster: TestCluster) {
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    ann.group("room", &[&bob]).await;
    let bobs = bob.connect(cluster.node(0)).await;
    let state = bobs.watch(&[&ann]).await;
    assert_eq!(state.len(), 1);
    assert_eq!((state[0].status, state[0].last_seen_at), (Offline, None));

    let phone = ann.connect(cluster.node(1)).await;
    let came = bobs.expect_presence(&ann, Online).await;
    assert!(came.online_since.is_some() && came.last_seen_at.is_none());
    let laptop = ann.connect(cluster.node(0)).await;
    phone.close().await;
    // Everybody else knows by then, and the laptop is still there.
    let tablet = ann.connect(cluster.node(1)).await;
    laptop.cut().await;
    tablet.cut().await;
    // Back within the grace, elsewhere: she was never gone.
    let phone = ann.connect(cluster.node(0)).await;
    let at_bobs = bob.at(cluster.node(1)).presence(ann.id()).await;
    assert_eq!(at_bobs.expect("ann's presence").status, Online);
    phone.close().await;
    let gone = bobs.expect_presence(&ann, Offline).await;
    assert!(gone.online_since.is_none());
    let mut shown = shown(&bobs, &ann);
    shown.dedup();
    assert_eq!(shown, [Offline, Online, Offline], "no flicker");

    let seen_at = gone.last_seen_at.expect("when she was seen last");
    assert!(Some(seen_at) > came.online_since);
    let looked_up = bob.presence(ann.id()).await.expect("ann's presence");
    assert_eq!(looked_up, gone);
    let row = bob.user(ann.id()).await.expect("ann");
    assert_eq!(row.last_seen_at, Some(seen_at));
    assert_eq!(bobs.watch(&[&ann]).await, [gone]);
}

pub(crate) async fn people_appear_as_they_choose(cluster: TestCluster) {
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    ann.group("room", &[&bob]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let laptop = ann.connect(cluster.node(1)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    bobs.watch(&[&ann]).await;
    let online = bobs.expect_presence(&ann, Online).await;

    phone.appear(ChosenStatus::Away).await;
    let away = bobs.expect_presence(&ann, Away).await;
    assert_eq!(away.online_since, online.online_since);
    laptop.expect_presence(&ann, Away).await;
    laptop.appear(ChosenStatus::Dnd).await;
    bobs.expect_presence(&ann, Dnd).await;
    phone.expect_presence(&ann, Dnd).await;
    assert!(shown(&laptop, &ann).ends_with(&[Away]), "its ok was enough");

    phone.appear(ChosenStatus::Invisible).await;
    let hidden = bobs.expect_presence(&ann, Offline).await;
    assert!(hidden.online_since.is_none() && hidden.last_seen_at.is_some());
    // Offline while connected means invisible.
    laptop.expect_presence(&ann, Offline).await;
    for node in [0, 1] {
        let bob = bob.at(cluster.node(node));
        let looked_up = bob.presence(ann.id()).await.expect("ann's presence");
        assert_eq!(looked_up, hidden);
        let online = bob.online_page(&PageRequest::default()).await;
        assert!(online.expect("a page").items.is_empty());
    }
    // The choice outlives sockets: coming and going is not seen either.
    let tablet = ann.connect(cluster.node(0)).await;
    assert_eq!(tablet.watch(&[&ann]).await[0].status, Offline);
    for device in [&phone, &laptop, &tablet] {
        device.close().await;
    }
    let phone = ann.connect(cluster.node(1)).await;
    phone.appear(ChosenStatus::Online).await;
    let back = bobs.expect_presence(&ann, Online).await;
    assert!(
        back.online_since > online.online_since,
        "it begins when she shows"
    );
    assert_eq!(shown(&bobs, &ann), [Online, Away, Dnd, Offline, Online]);
    let row = bob.user(ann.id()).await.expect("ann");
    assert_eq!(row.last_seen_at, hidden.last_seen_at, "not while invisible");
}

pub(crate) async fn strangers_see_nothing_and_watching_is_bounded(cluster: TestCluster) {
    let [ann, bob, eve] = cluster.register_all(["ann", "bob", "eve"]).await;
    ann.group("room", &[&bob]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let eves = eve.connect(cluster.node(1)).await;
    let nobody: UserId = "00000000-0000-7000-8000-00000000dead"
        .parse()
        .expect("an id");
    assert_eq!(eves.watch(&[&ann, &bob]).await, []);
    for id in [ann.id(), nobody] {
        let refused = eve.presence(id).await.expect_err("not hers to know");
        assert_eq!(refused.code, ErrorCode::NotFound);
    }
    assert_eq!(
        eve.presence_of(&[ann.id(), nobody]).await.expect("a list"),
        []
    );
    let own = eve.presence(eve.id()).await.expect("one's own");
    assert_eq!(own.status, Online);
    let asked = [nobody, bob.id(), ann.id()];
    let listed = bob.presence_of(&asked).await.expect("a list");
    let listed: Vec<UserId> = listed.iter().map(|presence| presence.user_id).collect();
    assert_eq!(listed, [bob.id(), ann.id()], "in the order asked");

    let ids = |numbers: std::ops::Range<u32>| -> Vec<UserId> {
        let id = |number| format!("00000000-0000-7000-8000-{number:012}").parse();
        numbers.map(|number| id(number).expect("an id")).collect()
    };
    let refused = anns.try_watch(&ids(0..201)).await.expect_err("too many");
    assert_eq!(refused.code, ErrorCode::Invalid);
    assert_eq!(refused.details[0].field, "user_ids");
    assert!(
        refused.details[0]
            .allowed
            .as_deref()
            .is_some_and(|text| text.contains("200"))
    );
    assert_eq!(anns.watch(&[&bob]).await.len(), 1);
    let refused = anns
        .try_watch(&ids(0..200))
        .await
        .expect_err("one too many");
    assert_eq!(refused.details[0].field, "user_ids");
    assert_eq!(
        anns.try_watch(&ids(0..199)).await.expect("all strangers"),
        []
    );
    assert_eq!(anns.unwatch(&[&bob]).await.len(), 1);
    let before = shown(&anns, &bob).len();
    let bobs = bob.connect(cluster.node(1)).await;
    eventually("bob is online", async || {
        let presence = ann.presence(bob.id()).await;
        presence.is_ok_and(|presence| presence.status == Online)
    })
    .await;
    anns.ping().await;
    assert_eq!(shown(&anns, &bob).len(), before, "not watched any more");
    bobs.ping().await;
}

pub(crate) async fn those_online_are_listed_page_by_page(cluster: TestCluster) {
    let people = cluster
        .register_all(["ann", "bob", "carol", "dave", "eve"])
        .await;
    let [ann, bob, carol, dave, eve] = &people;
    ann.group("room", &[bob, carol, dave]).await;
    let mut devices = Vec::new();
    for (number, person) in [bob, carol, dave, eve].into_iter().enumerate() {
        devices.push(person.connect(cluster.node(number)).await);
    }
    let mut expected: Vec<UserId> = [bob, carol, dave].map(Person::id).into();
    expected.sort_unstable();
    let all = async || {
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let limit = Some(2);
            let page = ann
                .online_page(&PageRequest { limit, cursor })
                .await
                .expect("a page");
            assert!(page.items.iter().all(|presence| presence.status == Online));
            found.extend(page.items.iter().map(|presence| presence.user_id));
            cursor = page.next_cursor;
            if cursor.is_none() {
                return found;
            }
        }
    };
    eventually("all but strangers are listed", async || {
        all().await == expected
    })
    .await;
    let wrong = PageRequest {
        limit: None,
        cursor: Some("bTE6eA".into()),
    };
    let refused = ann.online_page(&wrong).await.expect_err("another list's");
    assert_eq!(refused.code, ErrorCode::Invalid);
}

pub(crate) async fn who_blocks_somebody_looks_offline_to_them(cluster: TestCluster) {
    let [ann, bob, carol] = cluster.register_all(["ann", "bob", "carol"]).await;
    ann.group("room", &[&bob, &carol]).await;
    let _anns = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let carols = carol.connect(cluster.node(1)).await;
    for device in [&bobs, &carols] {
        device.watch(&[&ann]).await;
        device.expect_presence(&ann, Online).await;
    }
    ann.block(bob.id()).await.expect("a block");
    let hidden = bobs.expect_presence(&ann, Offline).await;
    assert_eq!((hidden.online_since, hidden.last_seen_at), (None, None));
    assert_eq!(bob.presence(ann.id()).await.expect("as shown"), hidden);
    assert_eq!(bobs.watch(&[&ann]).await, [hidden]);
    let online = bob.online_page(&PageRequest::default()).await;
    let online = online.expect("a page").items;
    assert!(online.iter().all(|presence| presence.user_id == carol.id()));

    ann.unblock(bob.id()).await.expect("no block");
    bobs.expect_presence(&ann, Online).await;
    assert_eq!(shown(&carols, &ann).pop(), Some(Online));
    assert!(
        !shown(&carols, &ann)[1..].contains(&Offline),
        "of no concern to her"
    );
}
