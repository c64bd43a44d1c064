//! The whole protocol, walked by a model checker: a supervisor, generations of launcher and daemon,
//! the claim, the record, the PID file and an operator, with any process dying at any step.
//!
//! The machines, the order of `started` and the reading of the record are those of the crate. What
//! the drivers do between them is told here again, step by step, with the names of their functions.
//! Every run ends, since whatever comes from outside is taken from a budget; so "in the end" is
//! whatever holds where nothing happens any more.

mod broken;
mod daemon;
mod launcher;
mod properties;
mod steps;
mod trace;
pub(crate) mod variants;
mod walks;
mod world;

use stateright::{Model, Property};
use steps::Action;
pub(crate) use variants::Variant;
use world::{Promise, Setting, World};

/// The protocol in some setting, whole or broken.
#[derive(Clone, Copy, Debug)]
struct Protocol {
    setting: Setting,
    broken: Option<Variant>,
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.setting)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        variants::set(self.broken);
        world.actions(&self.setting, actions);
        variants::set(None);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        variants::set(self.broken);
        let mut next = world.after(action, &self.setting);
        if let Some(next) = &mut next {
            if next.fault.is_none() && trace::silently(|| next.is_at_rest(&self.setting)) {
                next.check_rest(&self.setting);
            }
        }
        variants::set(None);
        next
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        use Promise::{P1, P3, P4, P5, P6, P8};
        fn keeps(world: &World, promise: Promise) -> bool {
            world.fault.is_none_or(|fault| fault.promise != promise)
        }
        vec![
            Property::always(P1.name(), |_, world| keeps(world, P1)),
            Property::always(P3.name(), |_, world| keeps(world, P3)),
            Property::always(P4.name(), |_, world| keeps(world, P4)),
            Property::always(P5.name(), |_, world| keeps(world, P5)),
            Property::always(P6.name(), |_, world| keeps(world, P6)),
            Property::always(P8.name(), |_, world| keeps(world, P8)),
        ]
    }
}
