//! Table of the open connections of a listener, and the choice of the one that makes room. Pure.

use super::{NoRoom, Room, Source, Stage, WhenFull};
use std::collections::{BTreeMap, BTreeSet};
use tokio_util::sync::CancellationToken;

/// Open connections of one listener. Ids grow, so the least is the oldest.
#[derive(Default)]
pub(super) struct Table {
    last: u64,
    pub(super) open: BTreeMap<u64, Open>,
    /// Number of connections that are to be closed, have left the table, and have not ended yet.
    pub(super) closing: usize,
    pub(super) held: BTreeMap<Stage, BTreeMap<Source, BTreeSet<u64>>>,
}

pub(super) struct Open {
    source: Source,
    stage: Stage,
    closing: CancellationToken,
}

impl Table {
    pub(super) fn next_id(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Adds a connection. Returns the source of which another was closed, if any.
    pub(super) fn enter(
        &mut self,
        id: u64,
        source: Source,
        stage: Stage,
        room: Room,
        closing: CancellationToken,
    ) -> Result<Option<Source>, NoRoom> {
        let closed = match self.must_yield(source, stage, room)? {
            Some(from) => self.close_oldest(stage, from),
            None => None,
        };
        self.open.insert(id, Open { source, stage, closing });
        self.held.entry(stage).or_default().entry(source).or_default().insert(id);
        Ok(closed)
    }

    pub(super) fn rise(&mut self, id: u64, stage: Stage, room: Room) -> Result<Option<Source>, NoRoom> {
        let Some(open) = self.open.get(&id).filter(|open| open.stage < stage) else { return Ok(None) };
        let (source, closing) = (open.source, open.closing.clone());
        let before = open.stage;
        let closed = self.enter(id, source, stage, room, closing)?;
        self.forget(id, source, before);
        Ok(closed)
    }

    /// Source whose oldest connection has to be closed for a new one.
    fn must_yield(&self, source: Source, stage: Stage, room: Room) -> Result<Option<Source>, NoRoom> {
        let (own, all) = (self.count_of(stage, source), self.count(stage));
        let share = if source.is_this_machine() { room.total } else { room.per_source };
        let full = all >= room.total;
        match room.when_full {
            WhenFull::Refuse if full => Err(NoRoom(stage)),
            _ if own >= share && own > 0 => Ok(Some(source)),
            _ if !full => Ok(None),
            _ => match self.heaviest(stage) {
                Some((heaviest, most)) if most > own + 1 => Ok(Some(heaviest)),
                _ if own > 1 => Ok(Some(source)),
                _ => Err(NoRoom(stage)),
            },
        }
    }

    /// Source that has most connections in a stage, and their number.
    pub(super) fn heaviest(&self, stage: Stage) -> Option<(Source, usize)> {
        let sources = self.held.get(&stage).into_iter().flatten();
        sources.map(|(source, ids)| (*source, ids.len())).max_by_key(|(_, count)| *count)
    }

    pub(super) fn close_oldest(&mut self, stage: Stage, source: Source) -> Option<Source> {
        let oldest = *self.held.get(&stage)?.get(&source)?.first()?;
        self.open.get(&oldest)?.closing.cancel();
        self.leave(oldest);
        self.closing += 1;
        Some(source)
    }

    pub(super) fn leave(&mut self, id: u64) {
        if let Some(open) = self.open.remove(&id) {
            self.forget(id, open.source, open.stage);
        }
    }

    fn forget(&mut self, id: u64, source: Source, stage: Stage) {
        let Some(sources) = self.held.get_mut(&stage) else { return };
        if let Some(ids) = sources.get_mut(&source) {
            ids.remove(&id);
            if ids.is_empty() {
                sources.remove(&source);
            }
        }
    }

    fn count_of(&self, stage: Stage, source: Source) -> usize {
        self.held.get(&stage).and_then(|sources| sources.get(&source)).map_or(0, BTreeSet::len)
    }

    pub(super) fn count(&self, stage: Stage) -> usize {
        self.held.get(&stage).into_iter().flatten().map(|(_, ids)| ids.len()).sum()
    }
}
