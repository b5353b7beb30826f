//! Which decision about a host an item belongs to, and which decisions that one knew of.
//!
//! Decisions about a host are numbered; in two regions at once the same number may be given twice, so a decision is the
//! number *and* the region. A document also says, for every other region, which of its decisions it follows from: so that of
//! two documents it can be told whether the later one knew of the earlier one, or only replaced it.

use std::collections::BTreeMap;

use hb_core::host::Host;
use hb_store::Result;

use crate::calls::Condition;
use crate::item::{Item, corrupt, need_number, number, set, some_number, text};
use crate::regions::{OWNER, owner};

/// One decision: what ties a document and a slim item together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tag {
    pub(crate) generation: u64,
    /// None: made where there were no regions.
    pub(crate) owner: Option<String>,
}

impl Tag {
    pub(crate) fn read(item: &Item) -> Result<Self> {
        Ok(Self { generation: need_number(item, "c")?, owner: owner(item).map(str::to_owned) })
    }

    pub(crate) fn to_text(&self) -> String {
        format!("{}@{}", self.generation, self.owner.as_deref().unwrap_or_default())
    }

    fn from_text(text: &str) -> Option<Self> {
        let (generation, owner) = text.split_once('@')?;
        let owner = Some(owner.to_owned()).filter(|owner| !owner.is_empty());
        Some(Self { generation: generation.parse().ok()?, owner })
    }

    /// True when the document of one and the slim item of the other belong together. A document that names no region is
    /// older than its regions.
    pub(crate) fn fits(&self, live: &Self) -> bool {
        self.generation == live.generation && (self.owner.is_none() || self.owner == live.owner)
    }

    /// True for a later decision of the same region.
    pub(crate) fn is_after(&self, other: &Self) -> bool {
        self.owner.is_some() && self.owner == other.owner && self.generation > other.generation
    }

    /// The item is still of this decision.
    pub(crate) fn condition(&self) -> Condition {
        let mut condition = Condition::new("c = :c", [(":c", number(self.generation))]);
        match &self.owner {
            Some(owner) => {
                condition.expression.push_str(" AND g = :g");
                condition.values.push((":g", text(owner)));
            }
            None => condition.expression.push_str(" AND attribute_not_exists(g)"),
        }
        condition
    }
}

/// What a document says of its decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) tag: Tag,
    /// The last decision of each other region that this one follows from.
    others: BTreeMap<String, u64>,
    /// How often its settings were changed.
    pub(crate) edits: u64,
    /// The last decision that was overwritten and is part of this one all the same: it was mended.
    pub(crate) mended: Option<String>,
    /// The decision that began the outage that there is, if it was not this one.
    outage: Option<Tag>,
    /// The decision that began the trouble that there is, if it was not this one.
    trouble: Option<Tag>,
}

impl Version {
    /// Of a host that is new.
    pub(crate) fn first(region: &str) -> Self {
        let owner = Some(region.to_owned()).filter(|region| !region.is_empty());
        let tag = Tag { generation: 1, owner };
        Self { tag, others: BTreeMap::new(), edits: 0, mended: None, outage: None, trouble: None }
    }

    pub(crate) fn read(item: &Item) -> Result<Self> {
        let mut others = BTreeMap::new();
        let listed = item.get("f").and_then(|listed| listed.as_s().ok()).map_or("", String::as_str);
        for part in listed.split(',').filter(|part| !part.is_empty()) {
            let (region, generation) = part.split_once('=').ok_or_else(|| corrupt(item, "f"))?;
            others.insert(region.to_owned(), generation.parse().map_err(|_| corrupt(item, "f"))?);
        }
        let mended = item.get("m").and_then(|mended| mended.as_s().ok()).cloned();
        let begun = |name: &str| {
            let begun = item.get(name).map(|begun| begun.as_s().ok().and_then(|begun| Tag::from_text(begun)));
            begun.map(|begun| begun.ok_or_else(|| corrupt(item, name))).transpose()
        };
        let (outage, trouble) = (begun("o")?, begun("t")?);
        let edits = some_number(item, "e")?.unwrap_or(0);
        Ok(Self { tag: Tag::read(item)?, others, edits, mended, outage, trouble })
    }

    pub(crate) fn write(&self, item: &mut Item) {
        item.insert("c".to_owned(), number(self.tag.generation));
        set(item, OWNER, self.tag.owner.as_ref().map(text));
        let others: Vec<String> = self.others.iter().map(|(region, last)| format!("{region}={last}")).collect();
        set(item, "f", (!others.is_empty()).then(|| text(others.join(","))));
        set(item, "e", (self.edits > 0).then(|| number(self.edits)));
        set(item, "m", self.mended.as_ref().map(text));
        set(item, "o", self.outage.as_ref().map(|begun| text(begun.to_text())));
        set(item, "t", self.trouble.as_ref().map(|begun| text(begun.to_text())));
    }

    /// Notes which decision began what there is of a host, if one did that this one follows from.
    pub(crate) fn note(&mut self, host: &Host, followed: &[(&Host, &Self)]) {
        let outage = |host: &Host| host.state.outage().map(|outage| outage.event);
        let same_outage = followed.iter().find(|(before, _)| outage(before) == outage(host));
        self.outage = outage(host).and(same_outage).map(|(_, version)| version.began_outage().clone());
        let same_trouble = followed.iter().find(|(before, _)| before.trouble == host.trouble);
        self.trouble = host.trouble.and(same_trouble).map(|(_, version)| version.began_trouble().clone());
    }

    /// The decision that began the outage, of a host that has one.
    pub(crate) fn began_outage(&self) -> &Tag {
        self.outage.as_ref().unwrap_or(&self.tag)
    }

    /// The decision that began the trouble, of a host that has one.
    pub(crate) fn began_trouble(&self) -> &Tag {
        self.trouble.as_ref().unwrap_or(&self.tag)
    }

    /// True when whoever made this decision knew of another one.
    pub(crate) fn knew(&self, other: &Tag) -> bool {
        other.owner.as_deref().is_some_and(|owner| self.last_of(owner) >= other.generation)
    }

    /// The decision of this region that follows; beyond `least`, which another piece of the host may have.
    pub(crate) fn next(&self, region: &str, least: u64, edits: u64) -> Self {
        let generation = self.tag.generation.max(least).saturating_add(1);
        let mut next = Self::first(region);
        next.others.clone_from(&self.others);
        if let Some(owner) = self.tag.owner.clone() {
            next.others.insert(owner, self.tag.generation);
        }
        next.others.remove(region);
        next.tag.generation = generation;
        next.edits = self.edits.saturating_add(edits);
        next.mended.clone_from(&self.mended);
        next
    }

    /// Takes over what another one knew, which was overwritten: what is decided from both follows from both.
    pub(crate) fn join(&mut self, other: &Self) {
        self.mended = Some(other.tag.to_text());
        for (region, last) in other.known() {
            if self.tag.owner.as_deref() == Some(region) {
                self.tag.generation = self.tag.generation.max(last);
            } else {
                let held = self.others.entry(region.to_owned()).or_default();
                *held = (*held).max(last);
            }
        }
        self.edits = self.edits.max(other.edits);
    }

    /// True when this decision knew of the other one, or is it: to be asked of two that replaced one another. (Of a region's
    /// own later decisions this cannot be told: they go on with the number, whether the one before was overwritten or not.)
    pub(crate) fn follows(&self, other: &Self) -> bool {
        if other.tag.owner.is_none() {
            return self.tag.generation >= other.tag.generation;
        }
        other.known().all(|(region, last)| self.last_of(region) >= last)
    }

    fn known(&self) -> impl Iterator<Item = (&str, u64)> {
        let others = self.others.iter().map(|(region, last)| (region.as_str(), *last));
        others.chain(self.tag.owner.as_deref().map(|owner| (owner, self.tag.generation)))
    }

    fn last_of(&self, region: &str) -> u64 {
        self.known().find(|(known, _)| *known == region).map_or(0, |(_, last)| last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(first: &str, rest: &[&str]) -> Version {
        rest.iter().fold(Version::first(first), |version, region| version.next(region, 0, 0))
    }

    #[test]
    fn a_decision_follows_those_that_it_knew_of_and_no_others() {
        let base = after("a", &["b", "a"]);
        let here = base.next("a", 0, 0);
        let there = base.next("b", 0, 0);
        let further = there.next("b", 0, 0);
        for (one, other, wanted) in [
            (&here, &base, true),
            (&there, &base, true),
            (&further, &there, true),
            (&base, &here, false),
            (&here, &there, false),
            (&there, &here, false),
            // The number is higher, and yet it did not know.
            (&further, &here, false),
            (&base, &base, true),
        ] {
            assert_eq!(one.follows(other), wanted, "{one:?} {other:?}");
        }
        let mut both = further.next("b", here.tag.generation, 0);
        both.join(&here);
        assert!(both.follows(&here) && both.follows(&further), "what is mended follows both");
        let apart = Tag { owner: Some("c".into()), ..here.tag.clone() };
        assert!(here.tag.fits(&here.tag) && !here.tag.fits(&apart), "one number, two regions");
    }

    #[test]
    fn a_version_is_read_back_and_one_region_alone_needs_no_list() {
        for version in [after("a", &[]), after("a", &["b", "c", "a"]), after("", &["", ""])] {
            let mut item = Item::new();
            version.write(&mut item);
            assert_eq!(Version::read(&item).unwrap(), version);
        }
        let mut alone = Item::new();
        after("a", &["a", "a"]).write(&mut alone);
        assert!(!alone.contains_key("f") && !alone.contains_key("e"));
    }
}
