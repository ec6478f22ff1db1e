BEGIN TRANSACTION;
CREATE TABLE aggregate_metadata (
	aggregate INTEGER NOT NULL, 
	"key" VARCHAR(255) NOT NULL, 
	value VARCHAR(255) NOT NULL, 
	owner VARCHAR(255), 
	CONSTRAINT pk_aggregate_metadata PRIMARY KEY (aggregate, "key"), 
	CONSTRAINT fk_aggregate_metadata_aggregate FOREIGN KEY(aggregate) REFERENCES aggregates (id) ON DELETE CASCADE
);
INSERT INTO "aggregate_metadata" VALUES(1,'arch','x86_64','arch');
INSERT INTO "aggregate_metadata" VALUES(2,'cpu_avx512','true','avx512');
INSERT INTO "aggregate_metadata" VALUES(4,'arch','aarch64','arch');
INSERT INTO "aggregate_metadata" VALUES(5,'availability_zone','az1',NULL);
INSERT INTO "aggregate_metadata" VALUES(5,'note','it''s ü; --',NULL);
CREATE TABLE aggregates (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	uuid VARCHAR(36) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	owner VARCHAR(255), 
	binding TEXT NOT NULL, 
	created BIGINT NOT NULL, 
	updated BIGINT NOT NULL, 
	generation BIGINT NOT NULL, 
	CONSTRAINT uq_aggregates_uuid UNIQUE (uuid), 
	CONSTRAINT uq_aggregates_name UNIQUE (name)
);
INSERT INTO "aggregates" VALUES(1,'8b03931a-534d-449c-b95a-a9af25902132','arch-x86_64','arch','{"arch": "x86_64"}',1795250495206257211,1795250495230238526,4);
INSERT INTO "aggregates" VALUES(2,'f48adcaf-8ace-4266-a5c9-f009e5af8c60','avx512','avx512','{}',1795250495206257211,1795250495277148853,6);
INSERT INTO "aggregates" VALUES(3,'cadfbff8-a2b0-4e9f-bd1c-7c81041331fc','big','big','{}',1795250495230238526,1795250495230238526,2);
INSERT INTO "aggregates" VALUES(4,'cca0af79-750d-43c0-a28d-eef40720b1aa','arch-aarch64','arch','{"arch": "aarch64"}',1795250495277148853,1795250495277148853,3);
INSERT INTO "aggregates" VALUES(5,'3f2b0c9e-6f0c-4f0e-9d2e-1f0a2b3c4d5e','by hand',NULL,'{}',1,2,3);
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE boots (
	host VARCHAR(64) NOT NULL, 
	boot_id VARCHAR(128) NOT NULL, 
	ended BIGINT NOT NULL, 
	CONSTRAINT pk_boots PRIMARY KEY (host, boot_id), 
	CONSTRAINT fk_boots_host FOREIGN KEY(host) REFERENCES hosts (uuid) ON DELETE CASCADE
);
INSERT INTO "boots" VALUES('00000000000000000000000000000001','boot1',1795250495265853023);
CREATE TABLE fleet (
	id INTEGER NOT NULL, 
	generation BIGINT NOT NULL, 
	rules VARCHAR(64) NOT NULL, 
	CONSTRAINT pk_fleet PRIMARY KEY (id)
);
INSERT INTO "fleet" VALUES(1,20,'3c59c61bdd7eedfb32dd9834ef0f5613bbd244f5e743110f8b535b26e6c02bdf');
CREATE TABLE history (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	time BIGINT NOT NULL, 
	aggregate VARCHAR(255) NOT NULL, 
	change VARCHAR(32) NOT NULL, 
	rule VARCHAR(255) NOT NULL, 
	host VARCHAR(255) NOT NULL, 
	why TEXT NOT NULL
);
INSERT INTO "history" VALUES(1,1795250495206257211,'arch-x86_64','created','arch','','rule ''arch'' holds for node1');
INSERT INTO "history" VALUES(2,1795250495206257211,'arch-x86_64','metadata','arch','','rule ''arch'' says so');
INSERT INTO "history" VALUES(3,1795250495206257211,'arch-x86_64','host-added','arch','node1','node1 is in arch-x86_64 because arch is ''x86_64'', seen 2023-11-14 22:13:20 UTC');
INSERT INTO "history" VALUES(4,1795250495206257211,'avx512','created','avx512','','rule ''avx512'' holds for node1');
INSERT INTO "history" VALUES(5,1795250495206257211,'avx512','metadata','avx512','','rule ''avx512'' says so');
INSERT INTO "history" VALUES(6,1795250495206257211,'avx512','host-added','avx512','node1','node1 is in avx512 because cpu_flags has ''avx512f'', seen 2023-11-14 22:13:20 UTC');
INSERT INTO "history" VALUES(7,1795250495230238526,'arch-x86_64','host-added','arch','node2','node2 is in arch-x86_64 because arch is ''x86_64'', seen 2023-11-14 22:13:20 UTC');
INSERT INTO "history" VALUES(8,1795250495230238526,'avx512','host-added','avx512','node2','node2 is in avx512 because cpu_flags has ''avx512f'', seen 2023-11-14 22:13:20 UTC');
INSERT INTO "history" VALUES(9,1795250495230238526,'big','created','big','','rule ''big'' holds for node2');
INSERT INTO "history" VALUES(10,1795250495230238526,'big','host-added','big','node2','node2 is in big because memory_gib is 64, as ''>= 64'' asks, seen 2023-11-14 22:13:20 UTC');
INSERT INTO "history" VALUES(11,1795250495265853023,'avx512','host-removed','avx512','node1','node1 is no longer in avx512 because cpu_flags lacks ''avx512f'', seen 2023-11-14 22:13:20 UTC');
INSERT INTO "history" VALUES(12,1795250495277148853,'arch-aarch64','created','arch','','rule ''arch'' holds for node3');
INSERT INTO "history" VALUES(13,1795250495277148853,'arch-aarch64','metadata','arch','','rule ''arch'' says so');
INSERT INTO "history" VALUES(14,1795250495277148853,'arch-aarch64','host-added','arch','node3','node3 is in arch-aarch64 because arch is ''aarch64'', seen 2023-11-14 22:13:20 UTC');
INSERT INTO "history" VALUES(15,1795250495277148853,'avx512','host-added','avx512','node3','node3 is in avx512 because cpu_flags has ''avx512f'', seen 2023-11-14 22:13:20 UTC');
CREATE TABLE hosts (
	uuid VARCHAR(64) NOT NULL, 
	hostname VARCHAR(255) NOT NULL, 
	boot_id VARCHAR(128) NOT NULL, 
	sequence BIGINT NOT NULL, 
	generation BIGINT NOT NULL, 
	first_seen BIGINT NOT NULL, 
	last_seen BIGINT NOT NULL, 
	agent_version VARCHAR(128) NOT NULL, 
	facts INTEGER NOT NULL, 
	traits INTEGER NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	report TEXT NOT NULL, 
	CONSTRAINT pk_hosts PRIMARY KEY (uuid)
);
INSERT INTO "hosts" VALUES('00000000000000000000000000000001','node1','boot2',2,2,1795250495206257211,1795250495265853023,'1.0',3,0,'9c5a8107cfb21d71db9385e3f6158e96a737e90ffb508561c5b2669a7fbbf220','{"schema":"1.0","uuid":"00000000000000000000000000000001","hostname":"node1","boot_id":"boot2","sequence":2,"generation":1,"created":1795250495264902081,"agent_version":"1.0","facts":{"arch":{"status":"ok","source":"source","observed":1700000000000000000,"value":"x86_64"},"cpu_flags":{"status":"ok","source":"source","observed":1700000000000000000,"value":["aes"]},"memory_gib":{"status":"ok","source":"source","observed":1700000000000000000,"value":16}},"traits":[]}');
INSERT INTO "hosts" VALUES('00000000000000000000000000000002','node2','boot1',1,1,1795250495230238526,1795250495230238526,'1.0',3,0,'a04253e64c3a9331170a3bb92bb84b38dbc6169dd9f84010c19fe68623660c02','{"schema":"1.0","uuid":"00000000000000000000000000000002","hostname":"node2","boot_id":"boot1","sequence":1,"generation":1,"created":1795250495229957479,"agent_version":"1.0","facts":{"arch":{"status":"ok","source":"source","observed":1700000000000000000,"value":"x86_64"},"cpu_flags":{"status":"ok","source":"source","observed":1700000000000000000,"value":["aes","avx512f"]},"memory_gib":{"status":"ok","source":"source","observed":1700000000000000000,"value":64}},"traits":[]}');
INSERT INTO "hosts" VALUES('00000000000000000000000000000003','node3','boot1',1,1,1795250495277148853,1795250495277148853,'1.0',3,0,'106b913b14be21501f530869398a4e66cc3a4f815a60e2b7dbc58575c4e36728','{"schema":"1.0","uuid":"00000000000000000000000000000003","hostname":"node3","boot_id":"boot1","sequence":1,"generation":1,"created":1795250495276876299,"agent_version":"1.0","facts":{"arch":{"status":"ok","source":"source","observed":1700000000000000000,"value":"aarch64"},"cpu_flags":{"status":"ok","source":"source","observed":1700000000000000000,"value":["aes","avx512f"]},"memory_gib":{"status":"ok","source":"source","observed":1700000000000000000,"value":16}},"traits":[]}');
CREATE TABLE members (
	aggregate INTEGER NOT NULL, 
	host VARCHAR(64) NOT NULL, 
	owner VARCHAR(255), 
	evidence TEXT NOT NULL, 
	CONSTRAINT pk_members PRIMARY KEY (aggregate, host), 
	CONSTRAINT fk_members_aggregate FOREIGN KEY(aggregate) REFERENCES aggregates (id) ON DELETE CASCADE, 
	CONSTRAINT fk_members_host FOREIGN KEY(host) REFERENCES hosts (uuid) ON DELETE CASCADE
);
INSERT INTO "members" VALUES(1,'00000000000000000000000000000001','arch','[{"rule":"arch","fact":"arch","requirement":"x86_64","matched":true,"reason":"arch is ''x86_64'', seen 2023-11-14 22:13:20 UTC","seen":"x86_64","status":"ok","source":"source","observed":1700000000000000000}]');
INSERT INTO "members" VALUES(1,'00000000000000000000000000000002','arch','[{"rule":"arch","fact":"arch","requirement":"x86_64","matched":true,"reason":"arch is ''x86_64'', seen 2023-11-14 22:13:20 UTC","seen":"x86_64","status":"ok","source":"source","observed":1700000000000000000}]');
INSERT INTO "members" VALUES(2,'00000000000000000000000000000002','avx512','[{"rule":"avx512","fact":"cpu_flags","requirement":"<in> avx512f","matched":true,"reason":"cpu_flags has ''avx512f'', seen 2023-11-14 22:13:20 UTC","seen":["aes","avx512f"],"status":"ok","source":"source","observed":1700000000000000000}]');
INSERT INTO "members" VALUES(3,'00000000000000000000000000000002','big','[{"rule":"big","fact":"memory_gib","requirement":">= 64","matched":true,"reason":"memory_gib is 64, as ''>= 64'' asks, seen 2023-11-14 22:13:20 UTC","seen":64,"status":"ok","source":"source","observed":1700000000000000000}]');
INSERT INTO "members" VALUES(4,'00000000000000000000000000000003','arch','[{"rule":"arch","fact":"arch","requirement":"aarch64","matched":true,"reason":"arch is ''aarch64'', seen 2023-11-14 22:13:20 UTC","seen":"aarch64","status":"ok","source":"source","observed":1700000000000000000}]');
INSERT INTO "members" VALUES(2,'00000000000000000000000000000003','avx512','[{"rule":"avx512","fact":"cpu_flags","requirement":"<in> avx512f","matched":true,"reason":"cpu_flags has ''avx512f'', seen 2023-11-14 22:13:20 UTC","seen":["aes","avx512f"],"status":"ok","source":"source","observed":1700000000000000000}]');
INSERT INTO "members" VALUES(5,'00000000000000000000000000000001',NULL,'[]');
CREATE INDEX ix_hosts_hostname ON hosts (hostname);
CREATE INDEX ix_members_host ON members (host);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('aggregates',5);
INSERT INTO "sqlite_sequence" VALUES('history',15);
COMMIT;
