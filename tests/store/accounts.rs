//! Accounts.

use rookery::store::{ProfileChange, StoreError, Taken};
use rookery_protocol::user::UserRole;

use crate::fixture::{NOW, contract, new_user};

contract! {
    async fn an_account_comes_back_as_it_was_added(fixture: Fixture) {
        let mut alice = new_user("alice");
        alice.full_name = Some("Alice Ünal".to_owned());
        alice.role = UserRole::Admin;
        let added = fixture.store.insert_user(&alice).await.unwrap().unwrap();
        let read = fixture.store.user(alice.user_id).await.unwrap().unwrap();
        for row in [added, read] {
            assert_eq!(row.user_id, alice.user_id);
            assert_eq!(row.username, "alice");
            assert_eq!(row.email, "alice@example.org");
            assert_eq!(row.full_name.as_deref(), Some("Alice Ünal"));
            assert_eq!(row.avatar_url, None);
            assert_eq!(row.role, UserRole::Admin);
            assert_eq!(row.auth_version, 1);
            assert_eq!(row.banned_at, None);
            assert_eq!(row.created_at, NOW);
            assert_eq!(row.last_seen_at, None);
        }
    }

    async fn names_are_taken_without_regard_to_case(fixture: Fixture) {
        fixture.user("alice").await;
        let mut other = new_user("ALICE");
        other.email = "other@example.org".to_owned();
        assert_eq!(fixture.store.insert_user(&other).await.unwrap().unwrap_err(), Taken::Username);
        let mut other = new_user("bob");
        other.email = "Alice@Example.org".to_owned();
        assert_eq!(fixture.store.insert_user(&other).await.unwrap().unwrap_err(), Taken::Email);
        assert!(fixture.store.user(other.user_id).await.unwrap().is_none());
    }

    async fn deleted_accounts_are_not_found(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let stranger = new_user("nobody").user_id;
        fixture.sql("update users set deleted_at = 1 where username = 'bob'").await;
        let found = fixture.store.users(&[alice, bob, stranger]).await.unwrap();
        assert_eq!(found.iter().map(|user| user.user_id).collect::<Vec<_>>(), [alice]);
        assert!(fixture.store.user(bob).await.unwrap().is_none());
        assert!(fixture.store.credentials("bob").await.unwrap().is_none());
        assert_eq!(fixture.store.search_users("", None, 10).await.unwrap().len(), 1);
        assert!(fixture.store.users(&[]).await.unwrap().is_empty());
    }

    async fn credentials_are_found_by_either_name(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        for login in ["alice", "ALICE", "alice@example.org", "Alice@Example.ORG"] {
            let found = fixture.store.credentials(login).await.unwrap().expect(login);
            assert_eq!(found.user.user_id, alice);
            assert_eq!(found.password_hash, "hash of alice");
        }
        assert!(fixture.store.credentials("ali").await.unwrap().is_none());
    }

    async fn a_search_finds_parts_of_names_literally_and_in_pages(fixture: Fixture) {
        for name in ["anna_b", "annaxb", "bert", "carl", "dora"] {
            fixture.user(name).await;
        }
        fixture.sql("update users set full_name = 'ANNA 100%' where username = 'dora'").await;
        let names = async |query: &str, after: Option<&str>, limit| -> Vec<String> {
            let found = fixture.store.search_users(query, after, limit).await.unwrap();
            found.into_iter().map(|user| user.username).collect()
        };
        assert_eq!(names("Anna", None, 10).await, ["anna_b", "annaxb", "dora"]);
        assert_eq!(names("anna_", None, 10).await, ["anna_b"]);
        assert_eq!(names("0%", None, 10).await, ["dora"]);
        assert_eq!(names("%", None, 10).await, ["dora"]);
        fixture.sql("update users set full_name = 'ÄNNE' where username = 'carl'").await;
        assert_eq!(names("ÄNNE", None, 10).await, ["carl"], "as it is spelt");
        assert_eq!(names("", None, 2).await, ["anna_b", "annaxb"]);
        assert_eq!(names("", Some("annaxb"), 2).await, ["bert", "carl"]);
        assert!(names("", Some("dora"), 2).await.is_empty());
    }

    async fn a_profile_changes_only_where_it_is_told_to(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let set = ProfileChange {
            full_name: Some(Some("Alice".to_owned())),
            avatar_url: Some(Some("https://example.org/a.png".to_owned())),
        };
        let row = fixture.store.update_profile(alice, &set).await.unwrap().unwrap();
        assert_eq!(row.full_name.as_deref(), Some("Alice"));
        let clear_one = ProfileChange { full_name: None, avatar_url: Some(None) };
        let row = fixture.store.update_profile(alice, &clear_one).await.unwrap().unwrap();
        assert_eq!(row.full_name.as_deref(), Some("Alice"));
        assert_eq!(row.avatar_url, None);
        let read = fixture.store.user(alice).await.unwrap().unwrap();
        assert_eq!((read.full_name, read.avatar_url), (row.full_name, row.avatar_url));
        let nobody = new_user("nobody").user_id;
        assert!(fixture.store.update_profile(nobody, &set).await.unwrap().is_none());
    }

    async fn a_password_hash_is_replaced(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        fixture.user("bob").await;
        fixture.store.set_password_hash(alice, "stronger").await.unwrap();
        let read = async |login| fixture.store.credentials(login).await.unwrap().unwrap();
        assert_eq!(read("alice").await.password_hash, "stronger");
        assert_eq!(read("bob").await.password_hash, "hash of bob");
    }

    async fn a_role_of_another_version_is_told_by_table_column_and_row(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let disable = if fixture.options.is_postgres() {
            "alter table users drop constraint users_role_check"
        } else {
            "pragma ignore_check_constraints = on"
        };
        fixture.sql(&format!("{disable}; update users set role = 'emperor'")).await;
        match fixture.store.user(alice).await {
            Err(StoreError::Corrupt { table: "users", column: "role", row }) => {
                assert_eq!(row, alice.to_string());
            }
            other => panic!("{other:?}"),
        }
    }
}
