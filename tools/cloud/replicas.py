"""Replication between the tables of two regions, as DynamoDB's global tables do it: each item by itself, some time later, and the
last writer wins.

A write is stamped when it is found in its table's stream. It is applied to the other table only if that has nothing newer of the item;
what was applied so is in that table's stream as well, and is not sent back.
"""

import itertools
import random
import threading
import time


def key_of(record):
    keys = record["dynamodb"]["Keys"]
    return keys["p"]["S"], keys["s"]["S"]


def change_of(record):
    """A record as what has to be written elsewhere."""
    image = record["dynamodb"].get("NewImage")
    return {"PutRequest": {"Item": image}} if image else {"DeleteRequest": {"Key": record["dynamodb"]["Keys"]}}


class Replication:
    def __init__(self, regions, lag):
        self.regions, self.lag = regions, lag
        self.is_on = True
        self.newest = [{}, {}]
        self.count = itertools.count()
        # By the region they are for: (due, stamp, key, change).
        self.waiting = [[], []]
        self.stepping = threading.Lock()

    def copy_all(self, region):
        """What there is already is in the other table, too, before anything else happens."""
        with self.stepping:
            self.take(region.place, region.fresh())
            self.apply(1 - region.place, float("inf"))

    def step(self):
        with self.stepping:
            for region in self.regions:
                self.take(region.place, region.fresh())
            if self.is_on and all(region.is_alive for region in self.regions):
                for place in (0, 1):
                    self.apply(place, time.monotonic())

    def take(self, place, records):
        now = time.monotonic()
        for record in records:
            # What is found at once has its order all the same.
            stamp = (now, next(self.count))
            self.newest[place][key_of(record)] = stamp
            due = now + random.uniform(0.2, 1.8) * self.lag
            self.waiting[1 - place].append((due, stamp, key_of(record), change_of(record)))

    def apply(self, place, now):
        due = [one for one in self.waiting[place] if one[0] <= now]
        self.waiting[place] = [one for one in self.waiting[place] if one[0] > now]
        for _, stamp, key, change in sorted(due, key=lambda one: one[0]):
            if self.newest[place].get(key, (0, 0)) < stamp:
                self.write(place, stamp, key, change)

    def write(self, place, stamp, key, change):
        self.newest[place][key] = stamp
        region = self.regions[place]
        region.write([change])
        records = region.fresh()
        ours = next((n for n, record in enumerate(records) if key_of(record) == key and change_of(record) == change), None)
        local = [record for n, record in enumerate(records) if n != ours]
        self.take(place, local)
        # A function was faster by a moment: what it wrote is newer, and stands.
        overwritten = [r for n, r in enumerate(records) if ours is not None and n < ours and key_of(r) == key]
        if overwritten:
            region.write([change_of(overwritten[-1])])
            self.take(place, region.fresh())
