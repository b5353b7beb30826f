-- One row per host. Everything that a beat writes or compares is a column; nothing that a beat writes is in an index.
-- Numbers above 2^63-1 are kept as 2^63-1.
CREATE TABLE hosts (
  no          INTEGER PRIMARY KEY,
  id          BLOB    NOT NULL UNIQUE,
  rev         INTEGER NOT NULL,
  state       TEXT    NOT NULL,
  -- 1 while a beat may take the fast path at all (hb_store::fast::is_open).
  is_open     INTEGER NOT NULL,
  nonce       BLOB    NOT NULL,
  nonce_at    INTEGER NOT NULL,
  need_ms     INTEGER NOT NULL,
  silent_from INTEGER NOT NULL,
  -- The longest silence that is no alarm; 2^63-1: none ever is.
  patience_ms INTEGER NOT NULL,
  -- The end of an announced maintenance, or 0.
  quiet_until INTEGER NOT NULL,
  interval_ms INTEGER NOT NULL,
  boot        BLOB,
  run         BLOB,
  seq         INTEGER NOT NULL,
  faults      TEXT    NOT NULL,
  heard_at    INTEGER,
  up_s        INTEGER NOT NULL,
  skew_ms     INTEGER,
  agent       TEXT    NOT NULL,
  vitals      TEXT,
  -- A lower bound of the host's alarm. Beats leave it as it is; what is found too early is moved (due.rs).
  check_at    INTEGER,
  name        TEXT    NOT NULL,
  key         BLOB    NOT NULL UNIQUE,
  -- The open outage.
  incident    BLOB,
  down_since  INTEGER,
  grouped     INTEGER NOT NULL,
  -- The rest, as JSON.
  doc         TEXT    NOT NULL
) STRICT;
CREATE UNIQUE INDEX hosts_live_name ON hosts (name) WHERE state <> 'retired';
CREATE INDEX hosts_name ON hosts (name, id);
CREATE INDEX hosts_check_at ON hosts (check_at, id) WHERE check_at IS NOT NULL;
CREATE INDEX hosts_incident ON hosts (incident) WHERE incident IS NOT NULL;

CREATE TABLE tags (
  host  INTEGER NOT NULL REFERENCES hosts (no) ON DELETE CASCADE,
  key   TEXT    NOT NULL,
  value TEXT    NOT NULL,
  PRIMARY KEY (host, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX tags_members ON tags (key, value, host);

CREATE TABLE incidents (
  id      BLOB    NOT NULL PRIMARY KEY,
  rev     INTEGER NOT NULL,
  is_open INTEGER NOT NULL,
  doc     TEXT    NOT NULL
) STRICT;
CREATE INDEX incidents_open ON incidents (is_open) WHERE is_open = 1;

-- Positions are never used twice (AUTOINCREMENT): cursors and orders rest on them.
CREATE TABLE events (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  id       BLOB    NOT NULL UNIQUE,
  host     BLOB,
  at       INTEGER NOT NULL,
  untold   INTEGER NOT NULL,
  doc      TEXT    NOT NULL
) STRICT;
CREATE INDEX events_host ON events (host, position);
CREATE INDEX events_untold ON events (position) WHERE untold = 1;

CREATE TABLE deliveries (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  id       BLOB    NOT NULL UNIQUE,
  event    BLOB    NOT NULL,
  channel  BLOB    NOT NULL,
  -- What has to arrive in order: a letter and an id.
  topic    BLOB    NOT NULL,
  incident BLOB,
  status   TEXT    NOT NULL,
  attempts INTEGER NOT NULL,
  ready_at INTEGER NOT NULL,
  leased_until INTEGER,
  doc      TEXT    NOT NULL
) STRICT;
CREATE INDEX deliveries_queue ON deliveries (channel, topic, position) WHERE status = 'pending';
CREATE INDEX deliveries_ready ON deliveries (ready_at) WHERE status = 'pending';
CREATE INDEX deliveries_finished ON deliveries (position) WHERE status <> 'pending';
CREATE INDEX deliveries_dead ON deliveries (position) WHERE status = 'dead';
CREATE INDEX deliveries_incident ON deliveries (incident) WHERE incident IS NOT NULL;
CREATE INDEX deliveries_event ON deliveries (event) WHERE status IN ('pending', 'dead');

CREATE TABLE api_keys (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  id       TEXT    NOT NULL UNIQUE,
  doc      TEXT    NOT NULL
) STRICT;

CREATE TABLE tokens (
  position   INTEGER PRIMARY KEY AUTOINCREMENT,
  id         TEXT    NOT NULL UNIQUE,
  uses_left  INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  revoked_at INTEGER,
  -- The rest, without the keys that it enrolled: those are many, and change apart.
  doc        TEXT    NOT NULL
) STRICT;
CREATE TABLE redeemed (
  token    INTEGER NOT NULL REFERENCES tokens (position) ON DELETE CASCADE,
  nth      INTEGER NOT NULL,
  key      BLOB    NOT NULL,
  PRIMARY KEY (token, nth)
) STRICT, WITHOUT ROWID;

CREATE TABLE channels (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  id       BLOB    NOT NULL UNIQUE,
  name     TEXT    NOT NULL UNIQUE,
  doc      TEXT    NOT NULL
) STRICT;

CREATE TABLE observation (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  rev INTEGER NOT NULL,
  doc TEXT    NOT NULL
) STRICT;
