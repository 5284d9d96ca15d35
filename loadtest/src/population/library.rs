//! Somebody who reads: many conversations, and one of them long.

use anyhow::Context;
use rookery_protocol::ConversationId;

use super::{Person, Population, write};

/// Somebody with many conversations, one of them long.
#[derive(Clone, Debug)]
pub(crate) struct Library {
    pub reader: Person,
    pub long: ConversationId,
    pub messages: u32,
}

/// A library that was made, and may grow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shelf {
    conversations: u32,
    long: ConversationId,
    messages: u32,
    /// Places of the one who reads and the one who writes, among the people.
    people: [usize; 2],
}

impl Population {
    /// Somebody in so many conversations, one of them with so many messages. A conversation of an
    /// earlier call that is too short grows: what is there already is not written again.
    ///
    /// # Errors
    /// As [`Population::people`].
    pub(crate) async fn library(
        &mut self,
        messages: u32,
        conversations: u32,
    ) -> anyhow::Result<Library> {
        let fits =
            |shelf: &Shelf| shelf.conversations == conversations && shelf.messages <= messages;
        let mut shelf = match self.shelf.filter(fits) {
            Some(shelf) => shelf,
            None => self.shelf(conversations).await?,
        };
        let people = self.people(self.people.len()).await?;
        let [reader, writer] = shelf.people.map(|place| people[place].clone());
        match &self.bulk {
            Some(bulk) => {
                let from = shelf.messages;
                bulk.messages(shelf.long, &writer, from, messages).await?;
            }
            None => {
                let more = messages.saturating_sub(shelf.messages);
                write::messages(&self.apis[0], shelf.long, &writer, more).await?;
            }
        }
        let api = self.apis[0].with_token(&reader.token);
        let long = api.conversation(shelf.long).await;
        let last = long.context("reading a conversation")?.last_seq;
        shelf.messages = u32::try_from(last.0).context("a log too long")?;
        self.shelf = Some(shelf);
        Ok(Library {
            reader,
            long: shelf.long,
            messages: shelf.messages,
        })
    }

    /// Two new people with so many conversations, without a message.
    async fn shelf(&mut self, conversations: u32) -> anyhow::Result<Shelf> {
        let known = self.people.len();
        let people = self.people(known + 2).await?[known..].to_vec();
        let groups = vec![people.iter().collect::<Vec<_>>(); conversations as usize];
        let groups = self.groups(&groups).await?;
        Ok(Shelf {
            conversations,
            long: *groups.first().context("no conversation")?,
            messages: 0,
            people: [known, known + 1],
        })
    }
}
