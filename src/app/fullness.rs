//! Shows how full everything is that is bounded.

use crate::bus::Bus;
use crate::gateway::{Gateway, Places};
use crate::metrics::{self, Level};

macro_rules! show {
    ($($resource:ident: $level:expr),+ $(,)?) => {
        let (used, capacity) = (metrics::used(), metrics::capacity());
        $(
            let level: Level = $level;
            used.$resource.set(level.used as f64);
            capacity.$resource.set(level.capacity as f64);
        )+
    };
}

/// Sets the gauges. `places`: of the public port's connections.
pub(super) fn show(gateway: &Gateway, bus: &dyn Bus, places: &Places) {
    let admission = gateway.admission.levels();
    let database = gateway.store.connections();
    let (publish, publish_bytes) = bus.waiting().unwrap_or_default();
    show! {
        sockets: admission.sockets,
        opening: admission.opening,
        strangers: admission.strangers,
        connections: places.level(),
        database: Level { used: database.used, capacity: database.max },
        sends: gateway.messages.level(),
        late: gateway.messages.late_level(),
        publish: publish,
        publish_bytes: publish_bytes,
        delivery: gateway.delivery.queue_level(),
        questions: gateway.delivery.questions_level(),
        held_bytes: gateway.delivery.held_level(),
        outbox_bytes: gateway.registry.backlog_level(),
        passwords: gateway.auth.passwords.level(),
    }
    let connections = metrics::store_connections();
    connections.used.set(database.used as f64);
    connections.idle.set(database.idle as f64);
}
