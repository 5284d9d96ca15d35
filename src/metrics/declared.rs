//! The metrics of a node, in the order of a message's way.

use super::declare::{Kind, Metric, Series, declare_metrics};

declare_metrics! {
    prefix "rookery_";

    /// Open WebSockets on this node.
    gauge sockets []
    /// Users with a WebSocket on this node.
    gauge users []
    /// WebSocket upgrades: accepted, or why not. To come back later: `rate` (this node's bucket),
    /// `opening` (too many are being opened), `full` (this node has all it may have), `address` (one
    /// address has), `draining`.
    counter upgrades_total {
        result: accepted | refused | unauthenticated | forbidden | rate | opening | full | address
            | draining
    }
    /// WebSockets closed, by the close code sent or received (1006: cut off without one).
    counter closes_total (code)
    /// Frames read from clients.
    counter frames_received_total []
    /// Frames written to clients.
    counter frames_sent_total []
    /// Frames that could not be decoded.
    counter bad_frames_total []
    /// Requests refused because one client asked for too much.
    counter rate_limited_total {
        bucket: messages | typing | marks | presence | account | address
    }
    /// Messages asked to be stored, over both ways in, by outcome.
    counter messages_total { result: stored | duplicate | refused | unavailable }
    /// Edits, deletions and reactions asked for, over both ways in, by outcome; `unchanged`: it was
    /// so already.
    counter message_changes_total { result: stored | unchanged | refused | unavailable }
    /// From accepting a WebSocket upgrade to queueing its `ready`.
    histogram open_seconds []
    /// From reading the frame of a message to queueing its acknowledgement.
    histogram ack_seconds []

    /// Messages stored by one transaction.
    histogram commit_batch_size []
    /// From the begin of a storing transaction to its commit.
    histogram commit_seconds []
    /// Delivered and read marks: accepted, joined with others that waited, and members' rows that
    /// were written because they grew.
    counter marks_total { result: taken | merged | written }
    /// Members whose marks one statement raised.
    histogram marks_flush_size []
    /// From the begin of a statement that raises marks to its commit.
    histogram marks_flush_seconds []
    /// Receipts published, each to one user or to those who watch a group.
    counter receipts_published_total []
    /// Connections to the primary: lent out, or waiting to be.
    gauge store_connections { state: used | idle }
    /// Operations that wait for a connection.
    gauge store_waiting []
    /// Waiting for a connection. With SQLite: for the one that writes.
    histogram store_wait_seconds []
    /// Waits for the database that were ended: for a connection, for the answer to a statement, or
    /// for a transaction.
    counter store_timeouts_total { waited_for: connection | statement | transaction }
    /// Transactions begun anew because another one was in their way.
    counter store_retries_total { reason: deadlock | serialization }
    /// Commits whose answer did not come: looked for once more, or their senders are told to repeat
    /// them.
    counter store_unknown_outcomes_total []
    /// Times the database was found to be away.
    counter store_outages_total []
    /// History pages that the primary served because the replica was behind or away.
    counter store_replica_fallbacks_total []

    /// Events published to the bus.
    counter bus_published_total []
    /// Events not published, because too much waited (`full`), Redis was away (`down`) or did not
    /// confirm them in time (`failed`); reconciliation finds them.
    counter bus_publish_dropped_total { reason: full | down | failed }
    /// From handing a batch of events to Redis to its confirmation.
    histogram bus_publish_seconds []
    /// Events that wait to be published.
    gauge bus_publish_queue []
    /// Bytes of the events that wait to be published.
    gauge bus_publish_queue_bytes []
    /// Envelopes heard on the bus.
    counter bus_received_total []
    /// Envelopes that this version could not read.
    counter bus_undecodable_total []
    /// Channels this node is subscribed to.
    gauge bus_subscriptions []
    /// 1 while the subscriber is connected and hears its own canary.
    gauge bus_connected []
    /// Subscriptions to everything anew, on a new connection.
    counter bus_resubscriptions_total { result: confirmed | failed }
    /// From a new connection of the subscriber to having everything confirmed on it.
    histogram bus_resubscribe_seconds []
    /// From sending this node's own canary to hearing it.
    histogram bus_canary_seconds []
    /// Nodes that live and whose canaries this one does not hear.
    gauge bus_neighbours_silent []
    /// From publishing an event to hearing it; clocks of two nodes are compared.
    histogram bus_lag_seconds []

    /// Times when news may have been missed, so that the journal was read at once. `reconnect`: the
    /// subscriber has a new connection; `cut_off`: likewise, since a Redis that went on closed it, as
    /// it does with one too far behind; `canary`, `neighbour`: this node's own sign of life, or that of a
    /// living neighbour, did not come; `standstill`: this process did not run; `overflow`: the queue of
    /// a worker of this node overflowed; `unpublished`: its own events were dropped; `undecodable`: a
    /// newer node's event.
    counter ingress_breaks_total {
        reason: reconnect | cut_off | canary | neighbour | standstill | overflow | unpublished
            | undecodable
    }
    /// Those breaks that a whole look at the journal followed: what they lost has been told.
    counter breaks_repaired_total []
    /// Entries passed on to sockets, by what brought them: news, the fill of a hole,
    /// reconciliation, or a device that resumed.
    counter delivered_total { path: bus | fill | reconcile | resume }
    /// From storing an entry to queueing it for the sockets of this node, once an entry and node, by
    /// what brought it; clocks of two nodes are compared. Reactions count from their publication.
    histogram delivery_seconds { path: bus | fill | reconcile }
    /// From a device's `sync` to the `sync.done` that ends it.
    histogram resume_seconds []
    /// Gaps seen in a conversation's order.
    counter holes_total []
    /// Conversations read from the store to close a gap.
    counter fills_total { result: filled | failed }
    /// Reading the store once, to close the gaps of one or many conversations.
    histogram fill_seconds []
    /// Entries that only the journal brought; near 0 in a healthy cluster.
    counter reconcile_found_total []
    /// Since everything committed until then had been told by the journal.
    gauge journal_lag_seconds []
    /// Times all sockets were sent to resume: the database was set back, or the journal was not
    /// read for so long that rows of it may be gone.
    counter forced_resumes_total { reason: set_back | blind }
    /// Looks at the journal.
    counter reconcile_looks_total { result: ok | failed }
    /// Looking into the journal once, with the time that news under way is given.
    histogram reconcile_look_seconds []
    /// Typing events that were not published, since the bus was busy.
    counter typing_shed_total []
    /// Frames left out because their reader has too much to read already: typing first
    /// (`ephemeral`), then receipts and presence (`latest`).
    counter outbox_shed_total { lane: ephemeral | latest }
    /// Sockets closed because their reader was too slow: too many frames or bytes waited for it, or
    /// for all of this node's (`node`), or it took too long for what was written (`stalled`).
    counter slow_readers_total { cause: frames | bytes | node | stalled }

    /// Nodes whose users count as online, this one included.
    gauge presence_nodes []
    /// Renewals of this node's lease; `rewritten`: with all of its list, at the start and when Redis
    /// had lost it.
    counter presence_lease_total { result: renewed | rewritten | failed }
    /// Changes of this node's list that did not reach Redis; all of it is written when it is back.
    counter presence_writes_failed_total []
    /// Look-ups of users; `incomplete`: some node could not be asked.
    counter presence_lookups_total { result: complete | incomplete }
    /// Changes told to other nodes.
    counter presence_announced_total { status: online | offline }
    /// Nodes that died or left and whose users this node told of.
    counter presence_deaths_total []
    /// Changes of watched users that became one with a later one before they were told.
    counter presence_merged_total []
    /// Users whose presence sockets of this node watch.
    gauge presence_watched []

    /// Log-ins.
    counter auth_logins_total { result: ok | refused | limited }
    /// Families of refresh tokens ended because an old token was used again.
    counter auth_refresh_reuse_total []
    /// Passwords waiting to be hashed or checked.
    gauge password_queue []

    /// REST requests by route (as in the router's table), method and status.
    counter http_requests_total (route, method, status)
    /// From reading a REST request to having its answer.
    histogram http_request_seconds (route)

    /// How much is used of what is bounded, each beside its `rookery_capacity`. `sockets`: of
    /// `limits.sockets`; `connections`: of the public port, sockets among them; `opening`: sockets
    /// being opened; `strangers`: sockets that have yet to show who they are; `database`: connections
    /// of `DATABASE_POOL_MAX`; `sends`: messages that wait to be stored, and `detours`: behind a
    /// conversation that somebody else holds; `late`: batches of stored messages whose members are to
    /// be read; `publish`, `publish_bytes`: events that wait for Redis; `delivery`: what was heard and
    /// waits for the busiest worker; `questions`: of nodes about users with many sockets, and what
    /// was answered; `held_bytes`: entries kept behind a gap; `outbox_bytes`: what waits for slow
    /// readers; `passwords`: those that wait to be hashed.
    gauge used {
        resource: sockets | connections | opening | strangers | database | sends | detours | late
            | publish | publish_bytes | delivery | questions | held_bytes | outbox_bytes | passwords
    }
    /// How much there may be of each `rookery_used`.
    gauge capacity {
        resource: sockets | connections | opening | strangers | database | sends | detours | late
            | publish | publish_bytes | delivery | questions | held_bytes | outbox_bytes | passwords
    }
    /// 1 while it does not answer this node; never for a Redis that is not configured.
    gauge away { service: redis | database }
    /// 1 while Redis or the database is away.
    gauge degraded []
    /// 1 while this node drains.
    gauge draining []
    /// Sockets that a draining node has yet to send away.
    gauge drain_sockets []
    /// Times the configuration was read again: something changed in this node, nothing did, or what
    /// was found cannot work and all stayed as it was.
    counter reloads_total { result: changed | unchanged | refused }
    /// Always 1; its label says which version runs.
    gauge build_info (version)
}
