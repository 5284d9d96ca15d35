//! What a device does about presence, and sees of it.

use rookery_protocol::UserId;
use rookery_protocol::command::{ClientCommand, PresenceSet, PresenceWatch};
use rookery_protocol::event::{ErrorEvent, Presence, ServerEvent};
use rookery_protocol::user::{ChosenStatus, PresenceStatus};

use super::record::Record;
use super::{Device, Person, new_message_id};
use crate::eventually::PATIENCE;

impl Device {
    /// Watches these people; the answer.
    ///
    /// # Panics
    /// It is refused, or does not come.
    pub async fn watch(&self, people: &[&Person]) -> Vec<Presence> {
        let ids: Vec<UserId> = people.iter().map(|person| person.id()).collect();
        let watched = self.try_watch(&ids).await;
        watched.unwrap_or_else(|error| panic!("cannot watch: {error:?}"))
    }

    /// Watches these users; the answer.
    ///
    /// # Errors
    /// The server refuses.
    ///
    /// # Panics
    /// There is no answer.
    pub async fn try_watch(&self, ids: &[UserId]) -> Result<Vec<Presence>, Box<ErrorEvent>> {
        let reference = Some(new_message_id().to_string());
        self.command(ClientCommand::PresenceSubscribe(PresenceWatch {
            reference: reference.clone(),
            user_ids: ids.to_vec(),
        }));
        self.presence_answer(reference).await
    }

    /// Ceases to watch these people; the answer.
    ///
    /// # Panics
    /// It is refused, or does not come.
    pub async fn unwatch(&self, people: &[&Person]) -> Vec<Presence> {
        let reference = Some(new_message_id().to_string());
        self.command(ClientCommand::PresenceUnsubscribe(PresenceWatch {
            reference: reference.clone(),
            user_ids: people.iter().map(|person| person.id()).collect(),
        }));
        let answer = self.presence_answer(reference).await;
        answer.unwrap_or_else(|error| panic!("cannot cease to watch: {error:?}"))
    }

    /// Chooses how to appear, and waits for the answer.
    ///
    /// # Panics
    /// It is refused, or not answered.
    pub async fn appear(&self, status: ChosenStatus) {
        let reference = Some(new_message_id().to_string());
        self.command(ClientCommand::PresenceSet(PresenceSet {
            reference: reference.clone(),
            status,
        }));
        self.expect("an ok", |event| match event {
            ServerEvent::Ok(ok) => (ok.reference == reference).then_some(()),
            _ => None,
        })
        .await;
    }

    /// Waits until somebody is shown to this device as this.
    ///
    /// # Panics
    /// They are not.
    pub async fn expect_presence(&self, person: &Person, status: PresenceStatus) -> Presence {
        let what = format!("{} as {status:?}", person.name());
        self.until(&what, PATIENCE, |record| {
            let shown = record.presences_of(person.id()).pop()?;
            (shown.status == status).then_some(shown)
        })
        .await
    }

    async fn presence_answer(
        &self,
        reference: Option<String>,
    ) -> Result<Vec<Presence>, Box<ErrorEvent>> {
        self.expect("an answer about presence", |event| match event {
            ServerEvent::PresenceState(state) if state.reference == reference => {
                Some(Ok(state.users.clone()))
            }
            ServerEvent::Error(error) if error.reference == reference => {
                Some(Err(Box::new(error.clone())))
            }
            _ => None,
        })
        .await
    }
}

impl Record {
    /// How somebody was shown on the present connection, one after the other, in answers and
    /// events.
    #[must_use]
    pub fn presences_of(&self, user: UserId) -> Vec<Presence> {
        let shown = self.events().flat_map(|event| match event {
            ServerEvent::Presence(presence) => std::slice::from_ref(presence),
            ServerEvent::PresenceState(state) => &state.users,
            _ => &[],
        });
        shown
            .filter(|shown| shown.user_id == user)
            .cloned()
            .collect()
    }
}
