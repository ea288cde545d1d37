-- Records of what has happened. Times named *_at are wall clock (UTC, seconds since 1970), for display; deadlines are
-- monotonic time (database.py), which no change of the clock affects. No column holds a patient's name, number or date;
-- an accession number is held until the archive has answered for it (table fetch).
--
-- Names of tables and columns are those of the first release: table parcel is a Delivery of the code, parcel_object a
-- DeliveryObject, steady the offset of the monotonic clock. database.py has the changes from earlier versions.

CREATE TABLE instance (                      -- one received SOP instance; another version of it may take its place
    arrival         INTEGER PRIMARY KEY AUTOINCREMENT,
    sop_uid         TEXT NOT NULL UNIQUE,
    study_uid       TEXT NOT NULL REFERENCES study,
    series_uid      TEXT NOT NULL,
    sop_class       TEXT NOT NULL,
    transfer_syntax TEXT NOT NULL,
    sha256          TEXT NOT NULL,           -- of the data set as received, without file meta information
    bytes           INTEGER NOT NULL,
    path            TEXT NOT NULL,           -- relative to the data folder
    sender          TEXT NOT NULL,           -- the sender, as in the audit log
    received_at     REAL NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('candidate', 'skipped', 'refused')),
    view            TEXT,                    -- L-CC, R-CC, L-MLO, R-MLO; null if the header states none
    reason          TEXT,                    -- why it is skipped (not such an image) or refused (broken, excluded)
    is_mammogram    INTEGER NOT NULL,        -- a Digital Mammography X-Ray image, in any state
    patient         TEXT                     -- pseudonym of the patient's identifiers; null: received by release 0.1.0
);
CREATE INDEX instance_of_study ON instance (study_uid);
CREATE INDEX instance_by_state ON instance (state, bytes);

CREATE TABLE quarantine (                    -- another version of a stored instance: same UID, other bytes; not used
    id          INTEGER PRIMARY KEY,
    sop_uid     TEXT NOT NULL,
    sha256      TEXT NOT NULL,
    path        TEXT NOT NULL,
    sender      TEXT NOT NULL,
    received_at REAL NOT NULL,
    reason      TEXT NOT NULL,
    replaced    INTEGER NOT NULL DEFAULT 0,  -- 1: it was the stored instance, until another version took its place
    UNIQUE (sop_uid, sha256)
);

CREATE TABLE rejection (                     -- an image rejected by a Key Object Selection document (IHE RAD, IOCM)
    sop_uid     TEXT NOT NULL,               -- of the image, which may not have been received
    study_uid   TEXT NOT NULL,
    code        TEXT NOT NULL,               -- document title, of the scheme DCM: 113001, 113037, 113038, 113039
    document    TEXT NOT NULL,               -- SOP Instance UID of the document
    received_at REAL NOT NULL,
    PRIMARY KEY (study_uid, sop_uid)
) WITHOUT ROWID;

CREATE TABLE sender (                        -- who has sent instances
    name      TEXT PRIMARY KEY,              -- as in the audit log
    last_at   REAL NOT NULL,                 -- of the last instance that was stored
    instances INTEGER NOT NULL               -- stored, those sent again included
) WITHOUT ROWID;

CREATE TABLE refusal (                       -- instances and associations that were refused, counted
    sender  TEXT NOT NULL,                   -- as in the audit log; an address alone if no AE title was received
    code    TEXT NOT NULL,                   -- status of the C-STORE in hexadecimal, or "association"
    times   INTEGER NOT NULL,
    last_at REAL NOT NULL,
    reason  TEXT NOT NULL,                   -- of the last one
    PRIMARY KEY (sender, code)
) WITHOUT ROWID;
CREATE INDEX refusal_by_time ON refusal (last_at);

CREATE TABLE study (
    study_uid  TEXT PRIMARY KEY,
    pseudonym  TEXT NOT NULL UNIQUE,         -- keyed hash; its name in logs, audit log and pages
    state      TEXT NOT NULL CHECK (state IN ('receiving', 'assembled', 'ignored')),
    opened     REAL NOT NULL,                -- monotonic: first instance since the last assembly; for assemble.cap_s
    touched    REAL NOT NULL,                -- monotonic: last instance; for assemble.quiet_s
    opened_at  REAL NOT NULL,
    touched_at REAL NOT NULL,
    settled    REAL,                         -- monotonic: nothing left to do or decide since then; for [retain]
    reason     TEXT,                         -- why assembled (views, quiet, cap), or why ignored
    priority   INTEGER NOT NULL DEFAULT 1    -- 0: STAT, 1: sent to us, 2: fetched by us (priority.py)
);
CREATE INDEX study_by_state ON study (state);

CREATE TABLE job (                           -- the processing of one study as it was when assembled
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    study_uid   TEXT NOT NULL REFERENCES study,
    key         TEXT NOT NULL UNIQUE,        -- names the folder of its results
    predecessor INTEGER REFERENCES job,      -- the job whose reports these replace
    state       TEXT NOT NULL CHECK (state IN ('ready', 'running', 'done', 'superseded', 'dead', 'discarded')),
    attempts    INTEGER NOT NULL DEFAULT 0,
    reason      TEXT,
    leased_by   TEXT,
    lease_until REAL,                        -- monotonic
    next_try    REAL NOT NULL DEFAULT 0,     -- monotonic
    created_at  REAL NOT NULL,
    started_at  REAL,
    finished_at REAL,
    lease       INTEGER NOT NULL DEFAULT 0,  -- number of the lease: counts up whenever a worker claims the job
    sources     TEXT NOT NULL DEFAULT ''     -- digest of its mammograms and their bytes
);
CREATE INDEX job_by_state ON job (state);
CREATE INDEX job_of_study ON job (study_uid);

CREATE TABLE job_view (                      -- the outcome of each mammogram of a job
    job_id  INTEGER NOT NULL REFERENCES job,
    sop_uid TEXT NOT NULL REFERENCES instance (sop_uid),
    outcome TEXT CHECK (outcome IN ('done', 'skipped', 'failed')),  -- null: not processed yet
    reason  TEXT,
    folder  TEXT,                            -- folder of its results, relative to the data folder
    seconds REAL,
    PRIMARY KEY (job_id, sop_uid)
) WITHOUT ROWID;
CREATE INDEX job_view_by_outcome ON job_view (outcome);

CREATE TABLE parcel (                        -- the delivery of one job's results to one target
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id       INTEGER NOT NULL REFERENCES job,
    target       TEXT NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'dead', 'discarded')),
    attempts     INTEGER NOT NULL DEFAULT 0,
    next_try     REAL NOT NULL DEFAULT 0,    -- monotonic
    commitment   TEXT,                       -- transaction UID of the latest request for storage commitment
    reason       TEXT,
    created_at   REAL NOT NULL,
    delivered_at REAL,
    UNIQUE (job_id, target)
);
CREATE INDEX parcel_by_state ON parcel (target, state, id);

CREATE TABLE parcel_object (                 -- an object is sent to a target once, whichever job made it
    target    TEXT NOT NULL,
    sop_uid   TEXT NOT NULL,
    parcel_id INTEGER NOT NULL REFERENCES parcel,
    sop_class TEXT NOT NULL,
    path      TEXT NOT NULL,                 -- relative to the data folder
    state     TEXT NOT NULL CHECK (state IN ('pending', 'sent', 'proven', 'dead')),
    reason    TEXT,
    PRIMARY KEY (target, sop_uid)
) WITHOUT ROWID;
CREATE INDEX object_of_parcel ON parcel_object (parcel_id);
CREATE INDEX object_by_uid ON parcel_object (sop_uid);

CREATE TABLE notify_event (                  -- an event of a job of which the receivers of [[notify]] are told
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id  INTEGER NOT NULL REFERENCES job,
    event   TEXT NOT NULL CHECK (event IN ('delivered', 'failed', 'refused_views', 'superseded')),
    at      REAL NOT NULL,
    reason  TEXT NOT NULL DEFAULT '',
    queued  INTEGER NOT NULL DEFAULT 0       -- 1: its notifications are in table notification
);
CREATE INDEX notify_event_of_job ON notify_event (job_id, event);
CREATE INDEX notify_event_by_queued ON notify_event (queued);

CREATE TABLE notification (                  -- the message about one event to one entry of [[notify]]
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id     INTEGER NOT NULL REFERENCES notify_event,
    target       TEXT NOT NULL,              -- name of the entry
    state        TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'dead', 'discarded')),
    attempts     INTEGER NOT NULL DEFAULT 0,
    next_try     REAL NOT NULL DEFAULT 0,    -- monotonic
    reason       TEXT,
    created_at   REAL NOT NULL,
    delivered_at REAL,
    UNIQUE (event_id, target)
);
CREATE INDEX notification_by_target ON notification (target, state, id);
CREATE INDEX notification_by_state ON notification (state, id);

CREATE TABLE event (                         -- the timeline of a study
    id        INTEGER PRIMARY KEY,
    study_uid TEXT NOT NULL,
    at        REAL NOT NULL,
    what      TEXT NOT NULL,                 -- received, assembled, started, done, delivered, ...
    detail    TEXT NOT NULL DEFAULT ''
);
CREATE INDEX event_of_study ON event (study_uid);

CREATE TABLE fetch (                         -- what is to be fetched from the archive of [fetch]
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    kind        TEXT NOT NULL CHECK (kind IN ('day', 'accession', 'study')),  -- two kinds of searches, and a study
    name        TEXT NOT NULL,               -- the day, YYYYMMDD; else the pseudonym of the accession number or UID
    value       TEXT,                        -- the day, accession number or Study Instance UID; null when fetched
    state       TEXT NOT NULL CHECK (state IN ('wanted', 'fetching', 'fetched', 'dead', 'cancelled')),
    attempts    INTEGER NOT NULL DEFAULT 0,
    next_try    REAL NOT NULL DEFAULT 0,     -- monotonic
    reason      TEXT,
    found       INTEGER,                     -- studies that a search found, or images of a study
    created_at  REAL NOT NULL,
    finished_at REAL,
    UNIQUE (kind, name)
);
CREATE INDEX fetch_by_state ON fetch (state, id);

CREATE TABLE component (                     -- the last heartbeat of each process and target
    name   TEXT PRIMARY KEY,                 -- receiver, keeper, worker, dispatcher, target:NAME
    state  TEXT NOT NULL,                    -- ready, starting, failing, ...
    detail TEXT NOT NULL DEFAULT '{}',       -- JSON
    beat   REAL NOT NULL,                    -- monotonic
    at     REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE steady (                        -- offset of the monotonic clock: added to the time since boot
    boot_id TEXT PRIMARY KEY,
    base    REAL NOT NULL
) WITHOUT ROWID;
