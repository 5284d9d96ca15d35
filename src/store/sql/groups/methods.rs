//! What making and changing a group does, step by step.

/// The making and changing of groups; needs `HEAD_LOCKED`, `ADD_MEMBERS`, `NAMED_MEMBERS`,
/// `STRANGERS`, `ACCOUNTS_AMONG` and `END_ALL_MEMBERSHIPS`.
macro_rules! groups {
    ($store:ty) => {
        use rookery_protocol::message::{Message, SystemNotice};
        use rookery_protocol::{ConversationId, Seq, Timestamp, UserId};

        use rookery_protocol::conversation::ConversationKind;

        use super::Tx;
        use super::journal::INSERT as INSERT_JOURNAL;
        use $crate::store::sql::conversations::kind;
        use $crate::store::sql::groups::{
            self as sql, Effect, Entry, GroupRecord, HeadRecord, NamedRecord,
        };
        use $crate::store::sql::journal;
        use $crate::store::sql::messages::INSERT_SYSTEM;
        use $crate::store::{
            FanoutState, GroupAction, GroupChange, GroupChanged, GroupCreated, GroupMember,
            GroupRule, GroupState, JournalRow, MemberList, NewGroup, Refusal, Result,
        };

        const ID_IS_TAKEN: &str = "this conversation_id is taken";

        pub(super) async fn create(
            store: &$store,
            group: &NewGroup,
            at: Timestamp,
        ) -> Result<std::result::Result<GroupCreated, Refusal>> {
            let mut tx = store.begin().await?;
            if let Some(answer) = repeated(&mut tx, group).await? {
                tx.rollback().await?;
                return Ok(answer);
            }
            if !all_have_accounts(&mut tx, group).await? {
                tx.rollback().await?;
                return Ok(Err(Refusal::Invalid {
                    field: "member_ids",
                    reason: "name somebody who has no account",
                    allowed: "users that exist",
                }));
            }
            // A second creation at the same time waits here for the end of the first one.
            let inserted = sqlx::query(sql::INSERT_GROUP)
                .bind(group.conversation_id)
                .bind(&group.title)
                .bind(&group.description)
                .bind(group.history_visible)
                .bind(group.creator)
                .bind(at)
                .execute(&mut *tx)
                .await?;
            if inserted.rows_affected() == 0 {
                let answer = repeated(&mut tx, group).await?;
                tx.rollback().await?;
                return Ok(answer.unwrap_or(Err(Refusal::Conflict(ID_IS_TAKEN))));
            }
            let count = group.member_ids.len() as i64 + 1;
            let fanout = FanoutState::of_new(count, group.direct_max);
            let head = sqlx::query(sql::INSERT_HEAD)
                .bind(group.conversation_id)
                .bind(at);
            let head = head.bind(count).bind(fanout.mode.as_str());
            head.execute(&mut *tx).await?;
            let owner = sqlx::query(sql::INSERT_OWNER).bind(group.conversation_id);
            owner.bind(group.creator).bind(at).execute(&mut *tx).await?;
            add(
                &mut tx,
                group.conversation_id,
                &group.member_ids,
                Seq::ZERO,
                at,
            )
            .await?;
            let place = Entry::first_of(group, at);
            let notice_text = group.notice_text.clone();
            let entry = place.report(&SystemNotice::GroupCreated, notice_text);
            let mut user_ids = group.member_ids.clone();
            user_ids.push(group.creator);
            write(&mut tx, &entry, user_ids.clone()).await?;
            tx.commit().await?;
            let conversation_id = group.conversation_id;
            let members = MemberList {
                conversation_id,
                version: 1,
                user_ids,
                blocked: Vec::new(),
                fanout,
            };
            Ok(Ok(GroupCreated {
                entry: Some(entry),
                members,
            }))
        }

        async fn all_have_accounts(tx: &mut Tx, group: &NewGroup) -> Result<bool> {
            let mut ids = group.member_ids.clone();
            ids.push(group.creator);
            let accounts: i64 = sqlx::query_scalar(ACCOUNTS_AMONG)
                .bind(super::list(ids.iter().map(UserId::as_uuid)))
                .fetch_one(&mut **tx)
                .await?;
            Ok(accounts == ids.len() as i64)
        }

        /// The answer to a creation whose id is taken; `None` if it is free.
        async fn repeated(
            tx: &mut Tx,
            group: &NewGroup,
        ) -> Result<Option<std::result::Result<GroupCreated, Refusal>>> {
            let id = group.conversation_id;
            let taken: Option<(String, UserId)> = sqlx::query_as(sql::CREATOR_OF)
                .bind(id)
                .fetch_optional(&mut **tx)
                .await?;
            let Some((kind_text, creator)) = taken else {
                return Ok(None);
            };
            if kind(id, &kind_text)? != ConversationKind::Group || creator != group.creator {
                return Ok(Some(Err(Refusal::Conflict(ID_IS_TAKEN))));
            }
            let head = lock_head(tx, id).await?;
            let (version, fanout) = match head {
                Some(head) => (head.member_version, head.fanout(id)?),
                None => (1, FanoutState::default()),
            };
            let members = present(tx, id, version, fanout).await?;
            Ok(Some(Ok(GroupCreated {
                entry: None,
                members,
            })))
        }

        pub(super) async fn change(
            store: &$store,
            change: &GroupChange,
            rule: GroupRule,
            at: Timestamp,
        ) -> Result<std::result::Result<Option<GroupChanged>, Refusal>> {
            let mut tx = store.begin_on(change.conversation_id).await?;
            let decided = match lock_head(&mut tx, change.conversation_id).await? {
                None => Err(Refusal::NotFound),
                Some(head) => {
                    let state = state(&mut tx, &head, change).await?;
                    rule(&state, change).map(|decision| decision.map(|notice| (head, notice)))
                }
            };
            let (head, (notice, text)) = match decided {
                Ok(Some(decision)) => decision,
                Ok(None) => {
                    tx.rollback().await?;
                    return Ok(Ok(None));
                }
                Err(refusal) => {
                    tx.rollback().await?;
                    return Ok(Err(refusal));
                }
            };
            let place = Entry::of(change, head.last_seq.next(), at);
            let effect = apply(&mut tx, &head, change, &notice, &place).await?;
            let version = head.member_version + i64::from(effect.is_new_list);
            let id = change.conversation_id;
            let fanout = head.fanout(id)?;
            let fanout = fanout.after(effect.member_count, change.direct_max, at);
            sqlx::query(sql::ADVANCE_HEAD)
                .bind(change.conversation_id)
                .bind(place.seq)
                .bind(at)
                .bind(version)
                .bind(effect.member_count)
                .bind(fanout.mode.as_str())
                .bind(fanout.changed_at)
                .execute(&mut *tx)
                .await?;
            let entry = place.report(&notice, text);
            let moved = effect
                .joined
                .iter()
                .chain(&effect.removed)
                .copied()
                .collect();
            write(&mut tx, &entry, moved).await?;
            let members = present(&mut tx, id, version, fanout).await?;
            tx.commit().await?;
            Ok(Ok(Some(GroupChanged {
                entry,
                notice,
                members,
                removed: effect.removed,
            })))
        }

        async fn lock_head(tx: &mut Tx, id: ConversationId) -> Result<Option<HeadRecord>> {
            Ok(sqlx::query_as(HEAD_LOCKED)
                .bind(id)
                .fetch_optional(&mut **tx)
                .await?)
        }

        /// Reads what the rule may look at, in statements after the lock: they see what was
        /// committed while it was waited for.
        async fn state(tx: &mut Tx, head: &HeadRecord, change: &GroupChange) -> Result<GroupState> {
            let id = change.conversation_id;
            let group: GroupRecord = sqlx::query_as(sql::GROUP)
                .bind(id)
                .fetch_one(&mut **tx)
                .await?;
            let owner_count: i64 = sqlx::query_scalar(sql::OWNER_COUNT)
                .bind(id)
                .fetch_one(&mut **tx)
                .await?;
            let named_ids = sql::named(&change.action);
            let mut asked = named_ids.to_vec();
            asked.push(change.actor);
            let records: Vec<NamedRecord> = sqlx::query_as(NAMED_MEMBERS)
                .bind(id)
                .bind(super::list(asked.iter().map(UserId::as_uuid)))
                .fetch_all(&mut **tx)
                .await?;
            let mut named = Vec::with_capacity(records.len());
            let mut actor = None;
            let is_named: std::collections::HashSet<&UserId> = named_ids.iter().collect();
            for record in records {
                let member = GroupMember::try_from(record)?;
                if member.user_id == change.actor {
                    actor = Some(member.clone());
                }
                if is_named.contains(&member.user_id) {
                    named.push(member);
                }
            }
            let strangers: Vec<(UserId, String)> = sqlx::query_as(STRANGERS)
                .bind(id)
                .bind(super::list(named_ids.iter().map(UserId::as_uuid)))
                .fetch_all(&mut **tx)
                .await?;
            Ok(GroupState {
                kind: kind(id, &group.kind)?,
                title: group.title,
                description: group.description,
                member_count: head.member_count,
                owner_count,
                actor,
                named,
                strangers,
            })
        }

        async fn apply(
            tx: &mut Tx,
            head: &HeadRecord,
            change: &GroupChange,
            notice: &SystemNotice,
            place: &Entry,
        ) -> Result<Effect> {
            let id = change.conversation_id;
            let mut effect = Effect {
                is_new_list: true,
                member_count: head.member_count,
                joined: Vec::new(),
                removed: Vec::new(),
            };
            match &change.action {
                GroupAction::Update { title, description } => {
                    sqlx::query(sql::UPDATE_GROUP)
                        .bind(id)
                        .bind(title.is_some())
                        .bind(title.clone().flatten())
                        .bind(description.is_some())
                        .bind(description.clone().flatten())
                        .execute(&mut **tx)
                        .await?;
                    effect.is_new_list = false;
                }
                GroupAction::AddMembers { user_ids } => {
                    effect.joined = match notice {
                        SystemNotice::MembersAdded { user_ids } => user_ids.clone(),
                        _ => user_ids.clone(),
                    };
                    let added = add(tx, id, &effect.joined, head.last_seq, place.at).await?;
                    effect.member_count += added;
                }
                GroupAction::RemoveMember { user_id } => {
                    let ended = sqlx::query(sql::END_MEMBERSHIP).bind(id).bind(user_id);
                    let ended = ended.bind(place.seq).execute(&mut **tx).await?;
                    if ended.rows_affected() == 1 {
                        effect.member_count -= 1;
                        effect.removed.push(*user_id);
                    }
                }
                GroupAction::ChangeRole { user_id, role } => {
                    let changed = sqlx::query(sql::CHANGE_ROLE).bind(id).bind(user_id);
                    changed.bind(role.as_str()).execute(&mut **tx).await?;
                }
                GroupAction::Delete => {
                    let deleted = sqlx::query(sql::DELETE_GROUP).bind(id).bind(place.at);
                    deleted.execute(&mut **tx).await?;
                    effect.removed = sqlx::query_scalar(END_ALL_MEMBERSHIPS)
                        .bind(id)
                        .bind(place.seq)
                        .fetch_all(&mut **tx)
                        .await?;
                    effect.member_count = 0;
                }
            }
            Ok(effect)
        }

        /// Returns how many were not members yet.
        async fn add(
            tx: &mut Tx,
            id: ConversationId,
            user_ids: &[UserId],
            joined_seq: Seq,
            at: Timestamp,
        ) -> Result<i64> {
            let added = sqlx::query(ADD_MEMBERS)
                .bind(id)
                .bind(at)
                .bind(joined_seq)
                .bind(super::list(user_ids.iter().map(UserId::as_uuid)))
                .execute(&mut **tx)
                .await?;
            Ok(added.rows_affected() as i64)
        }

        /// Writes an entry and the journal: the log that grew, and who came or went with it.
        async fn write(tx: &mut Tx, entry: &Message, moved: Vec<UserId>) -> Result<()> {
            let conversation_id = entry.conversation_id;
            sqlx::query(INSERT_SYSTEM)
                .bind(conversation_id)
                .bind(entry.seq)
                .bind(entry.message_id)
                .bind(entry.sender_id)
                .bind(entry.content.as_bytes())
                .bind(sql::metadata_json(entry))
                .bind(entry.created_at)
                .execute(&mut **tx)
                .await?;
            let mut rows = vec![JournalRow::Entries(vec![(conversation_id, entry.seq)])];
            if !moved.is_empty() {
                rows.push(JournalRow::Members {
                    conversation_id,
                    user_ids: moved,
                });
            }
            for row in &rows {
                let (kind, payload) = journal::pack(row);
                let insert = sqlx::query(INSERT_JOURNAL).bind(kind).bind(payload);
                insert.execute(&mut **tx).await?;
            }
            Ok(())
        }

        async fn present(
            tx: &mut Tx,
            id: ConversationId,
            version: i64,
            fanout: FanoutState,
        ) -> Result<MemberList> {
            let user_ids = sqlx::query_scalar(sql::PRESENT)
                .bind(id)
                .fetch_all(&mut **tx)
                .await?;
            Ok(MemberList {
                conversation_id: id,
                version,
                user_ids,
                blocked: Vec::new(),
                fanout,
            })
        }
    };
}
pub(in crate::store) use groups;
