-- A standby: reads, temporary tables, V$ views; every write is refused with 25006.
SELECT pg_is_in_recovery();
SHOW transaction_read_only;
SHOW in_hot_standby;
INSERT INTO sysopenhistory VALUES (1);
CREATE TABLE nosuch(a INT);
\echo :SQLSTATE
CREATE TEMP TABLE mine(a INT);
INSERT INTO mine VALUES (1), (2);
UPDATE mine SET a = a + 1;
SELECT * FROM mine;
DROP TABLE mine;
BEGIN;
SELECT 1 AS one;
CREATE TABLE nosuch(a INT);
SELECT 1 AS one;
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY;
SELECT 1 AS one;
COMMIT;
TRUNCATE nosuch;
\echo :SQLSTATE
SELECT mode$, status$ FROM v$instance;
SELECT arch_type, arch_status FROM v$arch_status ORDER BY arch_type;
SELECT ctl_link_status, data_link_status FROM v$mal_link_status;
SELECT applying, primary_name FROM v$rapply_sys;
SELECT sys_mode FROM sysopenhistory ORDER BY rowid;
ALTER DATABASE MOUNT;
\echo :SQLSTATE
