//! The methods of `ConversationStore`.

/// Implements `ConversationStore`; needs `CONVERSATIONS_OF`, `CONVERSATION_OF`, `MEMBERSHIPS_OF`,
/// `ENDS_OF`, `MEMBERSHIPS_IN`, `MEMBERSHIPS_AT`, `MEMBERS_BY_ID`, `MEMBERS_NAMED`, `SEATS`,
/// `MEMBER_LISTS` and `REACTIONS_OF`.
macro_rules! conversation_store {
    ($store:ty) => {
        use async_trait::async_trait;
        use rookery_protocol::conversation::{Conversation, Member};
        use rookery_protocol::{ConversationId, Timestamp, UserId};
        use uuid::Uuid;

        use super::journal::INSERT as INSERT_JOURNAL;
        use super::{blocks, groups};
        use $crate::store::sql::conversations::views::{self, SeatRecord, Written};
        use $crate::store::sql::conversations::{
            self as sql, EndRecord, ListedRecord, MemberListRecord, MemberRecord, MembershipRecord,
            end,
        };
        use $crate::store::sql::journal;
        use $crate::store::sql::{contains_pattern, transact};
        use $crate::store::{
            ConversationFilter, ConversationStore, DirectConversation, GroupChange, GroupChanged,
            GroupCreated, GroupRule, JournalRow, ListedConversation, LogEnd, MemberList,
            Membership, NewGroup, Refusal, Result,
        };

        #[async_trait]
        impl ConversationStore for $store {
            async fn ensure_direct(
                &self,
                creator: UserId,
                other: UserId,
                at: Timestamp,
            ) -> Result<Option<DirectConversation>> {
                let conversation_id = ConversationId::direct(creator, other);
                let exists: bool = sqlx::query_scalar(sql::DIRECT_EXISTS)
                    .bind(conversation_id)
                    .fetch_one(self.reader())
                    .await?;
                if exists {
                    return Ok(Some(DirectConversation {
                        conversation_id,
                        created: false,
                    }));
                }
                transact(super::TRANSACTION_WITHIN, || {
                    let store = self.clone();
                    async move { make_direct(&store, creator, other, at).await }
                })
                .await
            }

            async fn create_group(
                &self,
                group: &NewGroup,
                at: Timestamp,
            ) -> Result<std::result::Result<GroupCreated, Refusal>> {
                transact(super::TRANSACTION_WITHIN, || {
                    let (store, group) = (self.clone(), group.clone());
                    async move { groups::create(&store, &group, at).await }
                })
                .await
            }

            async fn change_group(
                &self,
                change: &GroupChange,
                rule: GroupRule,
                at: Timestamp,
            ) -> Result<std::result::Result<Option<GroupChanged>, Refusal>> {
                transact(super::TRANSACTION_WITHIN, || {
                    let (store, change) = (self.clone(), change.clone());
                    async move { groups::change(&store, &change, rule, at).await }
                })
                .await
            }

            async fn conversations_of(
                &self,
                user: UserId,
                filter: &ConversationFilter,
            ) -> Result<Vec<ListedConversation>> {
                let records: Vec<ListedRecord> = sqlx::query_as(CONVERSATIONS_OF)
                    .bind(user)
                    .bind(filter.changed_since)
                    .bind(filter.before.map(|(at, _)| at))
                    .bind(filter.before.map(|(_, id)| id))
                    .bind(filter.query.as_deref().map(contains_pattern))
                    .bind(filter.limit)
                    .fetch_all(self.reader())
                    .await?;
                listed(self, records).await
            }

            async fn conversation(
                &self,
                user: UserId,
                id: ConversationId,
            ) -> Result<Option<Conversation>> {
                let record: Option<ListedRecord> = sqlx::query_as(CONVERSATION_OF)
                    .bind(user)
                    .bind(id)
                    .fetch_optional(self.reader())
                    .await?;
                let listed = listed(self, record.into_iter().collect()).await?;
                Ok(listed.into_iter().next().map(|listed| listed.conversation))
            }

            async fn conversation_for(
                &self,
                id: ConversationId,
                users: &[UserId],
            ) -> Result<Vec<(UserId, Conversation)>> {
                if let [user] = users {
                    let view = self.conversation(*user, id).await?;
                    return Ok(view.into_iter().map(|view| (*user, view)).collect());
                }
                let seats: Vec<SeatRecord> = sqlx::query_as(SEATS)
                    .bind(id)
                    .bind(super::list(users.iter().map(UserId::as_uuid)))
                    .fetch_all(self.reader())
                    .await?;
                let Some(first) = seats.first() else {
                    return Ok(Vec::new());
                };
                let Some(mut seen) = self.conversation(first.user_id, id).await? else {
                    return Ok(Vec::new());
                };
                // A message's status is for its sender only, and the same whoever asks for it.
                let sender = seen.last_message.as_ref().map(|message| message.sender_id);
                if let Some(sender) = sender.filter(|sender| *sender != first.user_id)
                    && users.contains(&sender)
                    && let Some(own) = self.conversation(sender, id).await?
                {
                    seen = own;
                }
                let from = views::counted_from(&seats, seen.last_seq);
                let texts = sqlx::query_as(views::WRITTEN).bind(id).bind(from);
                let texts = texts.fetch_all(self.reader()).await?;
                let mentioning = sqlx::query_as(views::MENTIONING).bind(id).bind(from);
                let mentioning = mentioning.fetch_all(self.reader()).await?;
                let written = Written::of(texts, mentioning);
                let view = |seat: SeatRecord| Ok((seat.user_id, written.view(&seen, seat)?));
                seats.into_iter().map(view).collect()
            }

            async fn membership(
                &self,
                user: UserId,
                id: ConversationId,
            ) -> Result<Option<Membership>> {
                let record: Option<MembershipRecord> = sqlx::query_as(sql::MEMBERSHIP)
                    .bind(user)
                    .bind(id)
                    .fetch_optional(self.reader())
                    .await?;
                record.map(Membership::try_from).transpose()
            }

            async fn memberships_of(&self, users: &[UserId]) -> Result<Vec<Membership>> {
                let records: Vec<MembershipRecord> = sqlx::query_as(MEMBERSHIPS_OF)
                    .bind(super::list(users.iter().map(UserId::as_uuid)))
                    .fetch_all(self.reader())
                    .await?;
                records.into_iter().map(Membership::try_from).collect()
            }

            async fn ends_of(&self, users: &[UserId]) -> Result<Vec<LogEnd>> {
                let records: Vec<EndRecord> = sqlx::query_as(ENDS_OF)
                    .bind(super::list(users.iter().map(UserId::as_uuid)))
                    .fetch_all(self.reader())
                    .await?;
                records.into_iter().map(end).collect()
            }

            async fn memberships_in(
                &self,
                id: ConversationId,
                users: &[UserId],
            ) -> Result<Vec<Membership>> {
                let records: Vec<MembershipRecord> = sqlx::query_as(MEMBERSHIPS_IN)
                    .bind(id)
                    .bind(super::list(users.iter().map(UserId::as_uuid)))
                    .fetch_all(self.reader())
                    .await?;
                records.into_iter().map(Membership::try_from).collect()
            }

            async fn memberships_at(
                &self,
                members: &[(ConversationId, UserId)],
            ) -> Result<Vec<Membership>> {
                let records: Vec<MembershipRecord> = sqlx::query_as(MEMBERSHIPS_AT)
                    .bind(super::list(members.iter().map(|(id, _)| id.as_uuid())))
                    .bind(super::list(members.iter().map(|(_, user)| user.as_uuid())))
                    .fetch_all(self.reader())
                    .await?;
                records.into_iter().map(Membership::try_from).collect()
            }

            async fn members(
                &self,
                id: ConversationId,
                after: Option<UserId>,
                limit: i64,
            ) -> Result<Vec<Member>> {
                let records: Vec<MemberRecord> = sqlx::query_as(sql::MEMBERS)
                    .bind(id)
                    // No account has the nil id: all come after it.
                    .bind(after.unwrap_or(UserId::from_uuid(Uuid::nil())))
                    .bind(limit)
                    .fetch_all(self.reader())
                    .await?;
                records.into_iter().map(Member::try_from).collect()
            }

            async fn members_by_id(
                &self,
                id: ConversationId,
                users: &[UserId],
            ) -> Result<Vec<Member>> {
                let records: Vec<MemberRecord> = sqlx::query_as(MEMBERS_BY_ID)
                    .bind(id)
                    .bind(super::list(users.iter().map(UserId::as_uuid)))
                    .fetch_all(self.reader())
                    .await?;
                records.into_iter().map(Member::try_from).collect()
            }

            async fn members_by_name(
                &self,
                id: ConversationId,
                usernames: &[String],
            ) -> Result<Vec<(String, UserId)>> {
                Ok(sqlx::query_as(MEMBERS_NAMED)
                    .bind(id)
                    .bind(super::texts(usernames))
                    .fetch_all(self.reader())
                    .await?)
            }

            async fn member_lists(&self, ids: &[ConversationId]) -> Result<Vec<MemberList>> {
                let records: Vec<MemberListRecord> = sqlx::query_as(MEMBER_LISTS)
                    .bind(super::list(ids.iter().map(ConversationId::as_uuid)))
                    .fetch_all(self.reader())
                    .await?;
                sql::group_members(records)
            }
        }

        /// Conversations as in the list, with the reactions on their last messages.
        async fn listed(
            store: &$store,
            records: Vec<ListedRecord>,
        ) -> Result<Vec<ListedConversation>> {
            let (ids, seqs) = sql::reacted(&records);
            let mut listed = records
                .into_iter()
                .map(ListedConversation::try_from)
                .collect::<Result<Vec<_>>>()?;
            if !ids.is_empty() {
                let reactions = sqlx::query_as(REACTIONS_OF)
                    .bind(super::list(ids.iter().map(ConversationId::as_uuid)))
                    .bind(super::numbers(&seqs))
                    .fetch_all(store.reader())
                    .await?;
                sql::put_reactions(&mut listed, reactions);
            }
            Ok(listed)
        }

        async fn make_direct(
            store: &$store,
            creator: UserId,
            other: UserId,
            at: Timestamp,
        ) -> Result<Option<DirectConversation>> {
            let conversation_id = ConversationId::direct(creator, other);
            let mut tx = store.begin().await?;
            blocks::lock_pair(&mut tx, creator, other).await?;
            let accounts: i64 = sqlx::query_scalar(sql::ACCOUNTS_OF_PAIR)
                .bind(creator)
                .bind(other)
                .fetch_one(&mut *tx)
                .await?;
            let blocked = blocks::between(&mut tx, creator, other).await?;
            if accounts != 2 || blocked.contains(&creator) {
                tx.rollback().await?;
                return Ok(None);
            }
            let inserted = sqlx::query(sql::INSERT_DIRECT)
                .bind(conversation_id)
                .bind(creator)
                .bind(at)
                .execute(&mut *tx)
                .await?;
            if inserted.rows_affected() == 1 {
                let head = sqlx::query(sql::INSERT_DIRECT_HEAD)
                    .bind(conversation_id)
                    .bind(at);
                head.execute(&mut *tx).await?;
                sqlx::query(sql::INSERT_PAIR)
                    .bind(conversation_id)
                    .bind(creator)
                    .bind(other)
                    .bind(at)
                    .execute(&mut *tx)
                    .await?;
                if blocked.contains(&other) {
                    blocks::mark(&mut tx, conversation_id, other, at).await?;
                }
            } else if !revive_direct(&mut tx, conversation_id, at).await? {
                // Somebody else made it meanwhile.
                tx.rollback().await?;
                return Ok(Some(DirectConversation {
                    conversation_id,
                    created: false,
                }));
            }
            let user_ids = vec![creator, other];
            let (kind, payload) = journal::pack(&JournalRow::Members {
                conversation_id,
                user_ids,
            });
            let journal = sqlx::query(INSERT_JOURNAL).bind(kind).bind(payload);
            journal.execute(&mut *tx).await?;
            tx.commit().await?;
            Ok(Some(DirectConversation {
                conversation_id,
                created: true,
            }))
        }

        /// True if there was a deleted one. The head's row is locked first, as by every change of
        /// memberships.
        async fn revive_direct(
            tx: &mut super::Tx,
            id: ConversationId,
            at: Timestamp,
        ) -> Result<bool> {
            let head = sqlx::query(sql::REVIVE_HEAD).bind(id).bind(at);
            head.execute(&mut **tx).await?;
            let revived = sqlx::query(sql::REVIVE_DIRECT)
                .bind(id)
                .execute(&mut **tx)
                .await?;
            sqlx::query(sql::REVIVE_PAIR)
                .bind(id)
                .execute(&mut **tx)
                .await?;
            Ok(revived.rows_affected() == 1)
        }
    };
}
pub(in crate::store) use conversation_store;
