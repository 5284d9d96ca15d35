//! What the oracle says of everything that all devices did and saw.

use rookery_oracle::state::rows::{MEMBERSHIPS, MESSAGES};
use rookery_oracle::{Event, FinalState, History, Line, Options, Report, check};
use rookery_test_support::Person;

use super::{DEVICES, World};

/// Holds the devices' records to the database.
pub(super) async fn of(world: &World) -> Report {
    let messages = world.cluster.sql(MESSAGES).await;
    let memberships = world.cluster.sql(MEMBERSHIPS).await;
    let state = FinalState::of_rows(&messages, &memberships).expect("rows of the two tables");
    let options = Options {
        all_sends_recorded: true,
        ..Options::default()
    };
    let history = History::of_lines("random", lines(world));
    check(&[history], &state, &options).expect("lines in memory can be read")
}

fn lines(world: &World) -> Vec<Line> {
    let process = Event::Process {
        format: rookery_oracle::event::FORMAT,
        name: "random".to_owned(),
        wall_ms: 0,
    };
    let mut lines = vec![Line {
        t: 0,
        device: rookery_oracle::event::PROCESS,
        event: process,
    }];
    for (who, person) in world.people.iter().enumerate() {
        for which in 0..DEVICES {
            let number = who * DEVICES + which + 1;
            lines.extend(history(world, person, (who, which), number as u32));
        }
    }
    lines
}

fn history(world: &World, person: &Person, (who, which): (usize, usize), number: u32) -> Vec<Line> {
    let name = format!("{} {which}", person.name());
    let device = &world.players[who][which].device;
    device.read(|record| record.history((number, &name), person.id(), world.began))
}
