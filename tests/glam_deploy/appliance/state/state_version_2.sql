BEGIN TRANSACTION;
CREATE TABLE component (
    name   TEXT PRIMARY KEY,
    state  TEXT NOT NULL,
    detail TEXT NOT NULL DEFAULT '{}',
    beat   REAL NOT NULL,
    at     REAL NOT NULL
) WITHOUT ROWID;
INSERT INTO "component" VALUES('target:pacs','failing','{"reason": "x"}',1000.0,1.79587247477325487139e+09);
INSERT INTO "component" VALUES('worker','ready','{"engine": "onnx"}',1000.0,1795872474.76528);
CREATE TABLE event (
    id        INTEGER PRIMARY KEY,
    study_uid TEXT NOT NULL,
    at        REAL NOT NULL,
    what      TEXT NOT NULL,
    detail    TEXT NOT NULL DEFAULT ''
);
INSERT INTO "event" VALUES(1,'1.2.1',1.79587247468451023102e+09,'received','candidate L-CC from MODALITY@127.0.0.1');
INSERT INTO "event" VALUES(2,'1.2.1',1.79587247469380378722e+09,'assembled','nothing came for 0 s');
INSERT INTO "event" VALUES(3,'1.2.2',1.79587247470140981674e+09,'received','candidate L-CC from MODALITY@127.0.0.1');
INSERT INTO "event" VALUES(4,'1.2.2',1.79587247470541381839e+09,'assembled','nothing came for 0 s');
INSERT INTO "event" VALUES(5,'1.2.3',1.79587247470939707751e+09,'received','candidate L-CC from MODALITY@127.0.0.1');
INSERT INTO "event" VALUES(6,'1.2.3',1.79587247471705174447e+09,'assembled','nothing came for 0 s');
INSERT INTO "event" VALUES(7,'1.2.1',1795872474.72157,'started','');
INSERT INTO "event" VALUES(8,'1.2.1',1.79587247473503923414e+09,'done','');
INSERT INTO "event" VALUES(9,'1.2.2',1.79587247473534774777e+09,'started','');
INSERT INTO "event" VALUES(10,'1.2.2',1.7958724747357313633e+09,'done','');
INSERT INTO "event" VALUES(11,'1.2.1',1.79587247474540543561e+09,'delivered','pacs');
INSERT INTO "event" VALUES(12,'1.2.3',1.79587247475337457658e+09,'started','');
INSERT INTO "event" VALUES(13,'1.2.3',1.79587247476136612888e+09,'dead','cost 1 worker, which ended while at it');
CREATE TABLE instance (
    arrival         INTEGER PRIMARY KEY AUTOINCREMENT,
    sop_uid         TEXT NOT NULL UNIQUE,
    study_uid       TEXT NOT NULL REFERENCES study,
    series_uid      TEXT NOT NULL,
    sop_class       TEXT NOT NULL,
    transfer_syntax TEXT NOT NULL,
    sha256          TEXT NOT NULL,
    bytes           INTEGER NOT NULL,
    path            TEXT NOT NULL,
    sender          TEXT NOT NULL,
    received_at     REAL NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('candidate', 'skipped', 'refused')),
    view            TEXT,
    reason          TEXT,
    is_mammogram    INTEGER NOT NULL
, patient TEXT);
INSERT INTO "instance" VALUES(1,'1.2.1.1','1.2.1','1.2.3.4','1.2.840.10008.5.1.4.1.1.1.2','1.2.840.10008.1.2.1','digest of 1.2.1.1',1,'spool/studies/1.2.1/1.2.1.1.dcm','MODALITY@127.0.0.1',1.79587247468443608287e+09,'candidate','L-CC',NULL,1,NULL);
INSERT INTO "instance" VALUES(2,'1.2.2.1','1.2.2','1.2.3.4','1.2.840.10008.5.1.4.1.1.1.2','1.2.840.10008.1.2.1','digest of 1.2.2.1',1,'spool/studies/1.2.2/1.2.2.1.dcm','MODALITY@127.0.0.1',1.79587247470136904714e+09,'candidate','L-CC',NULL,1,NULL);
INSERT INTO "instance" VALUES(3,'1.2.3.1','1.2.3','1.2.3.4','1.2.840.10008.5.1.4.1.1.1.2','1.2.840.10008.1.2.1','digest of 1.2.3.1',1,'spool/studies/1.2.3/1.2.3.1.dcm','MODALITY@127.0.0.1',1.79587247470935940747e+09,'candidate','L-CC',NULL,1,NULL);
CREATE TABLE job (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    study_uid   TEXT NOT NULL REFERENCES study,
    key         TEXT NOT NULL UNIQUE,
    predecessor INTEGER REFERENCES job,
    state       TEXT NOT NULL CHECK (state IN ('ready', 'running', 'done', 'superseded', 'dead', 'discarded')),
    attempts    INTEGER NOT NULL DEFAULT 0,
    reason      TEXT,
    leased_by   TEXT,
    lease_until REAL,
    next_try    REAL NOT NULL DEFAULT 0,
    created_at  REAL NOT NULL,
    started_at  REAL,
    finished_at REAL
, lease INTEGER NOT NULL DEFAULT 0, sources TEXT NOT NULL DEFAULT '');
INSERT INTO "job" VALUES(1,'1.2.1','fc3f8f3cda494746e0780bd693d145a274b888f49c4f157fbc255df925ba6b90',NULL,'done',0,NULL,NULL,NULL,0.0,1.79587247469367241852e+09,1.79587247472151398655e+09,1795872474.73483,0,'fc3f8f3cda494746e0780bd693d145a274b888f49c4f157fbc255df925ba6b90');
INSERT INTO "job" VALUES(2,'1.2.2','d011eae3c007700c045c4635a34fe5b4ac3ee97ed57166435de7fa291b4af2c1',NULL,'done',0,NULL,NULL,NULL,0.0,1.79587247470536518099e+09,1.79587247473532748216e+09,1.79587247473568272591e+09,0,'d011eae3c007700c045c4635a34fe5b4ac3ee97ed57166435de7fa291b4af2c1');
INSERT INTO "job" VALUES(3,'1.2.3','20f48a287308c912f7e04318133bc6930bec7f9891332b4777eea31f157abd32',NULL,'dead',1,'cost 1 worker, which ended while at it',NULL,NULL,1001.0,1.79587247471700406069e+09,1.79587247475334954257e+09,1.79587247476128292079e+09,0,'20f48a287308c912f7e04318133bc6930bec7f9891332b4777eea31f157abd32');
CREATE TABLE job_view (
    job_id  INTEGER NOT NULL REFERENCES job,
    sop_uid TEXT NOT NULL REFERENCES instance (sop_uid),
    outcome TEXT CHECK (outcome IN ('done', 'skipped', 'failed')),
    reason  TEXT,
    folder  TEXT,
    seconds REAL,
    PRIMARY KEY (job_id, sop_uid)
) WITHOUT ROWID;
INSERT INTO "job_view" VALUES(1,'1.2.1.1','done',NULL,'results/views/1.2.1',0.5);
INSERT INTO "job_view" VALUES(2,'1.2.2.1','done',NULL,'results/views/1.2.2',0.5);
INSERT INTO "job_view" VALUES(3,'1.2.3.1',NULL,NULL,NULL,NULL);
CREATE TABLE parcel (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id       INTEGER NOT NULL REFERENCES job,
    target       TEXT NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'dead', 'discarded')),
    attempts     INTEGER NOT NULL DEFAULT 0,
    next_try     REAL NOT NULL DEFAULT 0,
    commitment   TEXT,
    reason       TEXT,
    created_at   REAL NOT NULL,
    delivered_at REAL,
    UNIQUE (job_id, target)
);
INSERT INTO "parcel" VALUES(1,1,'pacs','delivered',0,0.0,NULL,NULL,1.79587247473492240905e+09,1.79587247474523830411e+09);
INSERT INTO "parcel" VALUES(2,2,'pacs','pending',1,2000.0,NULL,'the target answered 0xA900',1.79587247473569917681e+09,NULL);
CREATE TABLE parcel_object (
    target    TEXT NOT NULL,
    sop_uid   TEXT NOT NULL,
    parcel_id INTEGER NOT NULL REFERENCES parcel,
    sop_class TEXT NOT NULL,
    path      TEXT NOT NULL,
    state     TEXT NOT NULL CHECK (state IN ('pending', 'sent', 'proven', 'dead')),
    reason    TEXT,
    PRIMARY KEY (target, sop_uid)
) WITHOUT ROWID;
INSERT INTO "parcel_object" VALUES('pacs','2.25.1',1,'1.2.840.10008.5.1.4.1.1.66.4','results/views/1.2.1/seg.dcm','proven',NULL);
INSERT INTO "parcel_object" VALUES('pacs','2.25.2',2,'1.2.840.10008.5.1.4.1.1.66.4','results/views/1.2.2/seg.dcm','pending',NULL);
CREATE TABLE quarantine (
    id          INTEGER PRIMARY KEY,
    sop_uid     TEXT NOT NULL,
    sha256      TEXT NOT NULL,
    path        TEXT NOT NULL,
    sender      TEXT NOT NULL,
    received_at REAL NOT NULL,
    reason      TEXT NOT NULL, replaced INTEGER NOT NULL DEFAULT 0,
    UNIQUE (sop_uid, sha256)
);
CREATE TABLE refusal (                       
    sender  TEXT NOT NULL,                   
    code    TEXT NOT NULL,                   
    times   INTEGER NOT NULL,
    last_at REAL NOT NULL,
    reason  TEXT NOT NULL,                   
    PRIMARY KEY (sender, code)
) WITHOUT ROWID;
CREATE TABLE rejection (                     
    sop_uid     TEXT NOT NULL,               
    study_uid   TEXT NOT NULL,
    code        TEXT NOT NULL,               
    document    TEXT NOT NULL,               
    received_at REAL NOT NULL,
    PRIMARY KEY (study_uid, sop_uid)
) WITHOUT ROWID;
CREATE TABLE sender (                        
    name      TEXT PRIMARY KEY,              
    last_at   REAL NOT NULL,                 
    instances INTEGER NOT NULL               
) WITHOUT ROWID;
CREATE TABLE steady (
    boot_id TEXT PRIMARY KEY,
    base    REAL NOT NULL
) WITHOUT ROWID;
INSERT INTO "steady" VALUES('boot of the first release',0.0);
CREATE TABLE study (
    study_uid  TEXT PRIMARY KEY,
    pseudonym  TEXT NOT NULL UNIQUE,
    state      TEXT NOT NULL CHECK (state IN ('receiving', 'assembled', 'ignored')),
    opened     REAL NOT NULL,
    touched    REAL NOT NULL,
    opened_at  REAL NOT NULL,
    touched_at REAL NOT NULL,
    settled    REAL,
    reason     TEXT
);
INSERT INTO "study" VALUES('1.2.1','name of 1.2.1','assembled',1000.0,1000.0,1.79587247468427181236e+09,1.79587247468427181236e+09,NULL,'nothing came for 0 s');
INSERT INTO "study" VALUES('1.2.2','name of 1.2.2','assembled',1000.0,1000.0,1.79587247470128440855e+09,1.79587247470128440855e+09,NULL,'nothing came for 0 s');
INSERT INTO "study" VALUES('1.2.3','name of 1.2.3','assembled',1000.0,1000.0,1.79587247470928049091e+09,1.79587247470928049091e+09,NULL,'nothing came for 0 s');
CREATE INDEX instance_of_study ON instance (study_uid);
CREATE INDEX instance_by_state ON instance (state, bytes);
CREATE INDEX study_by_state ON study (state);
CREATE INDEX job_by_state ON job (state);
CREATE INDEX job_of_study ON job (study_uid);
CREATE INDEX job_view_by_outcome ON job_view (outcome);
CREATE INDEX parcel_by_state ON parcel (target, state, id);
CREATE INDEX object_of_parcel ON parcel_object (parcel_id);
CREATE INDEX object_by_uid ON parcel_object (sop_uid);
CREATE INDEX event_of_study ON event (study_uid);
CREATE INDEX refusal_by_time ON refusal (last_at);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('instance',3);
INSERT INTO "sqlite_sequence" VALUES('job',3);
INSERT INTO "sqlite_sequence" VALUES('parcel',2);
COMMIT;
PRAGMA user_version = 2;
