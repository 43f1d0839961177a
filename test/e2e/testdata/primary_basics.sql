-- What a person types into psql on the primary.
CREATE TABLE shop(id INT PRIMARY KEY, name VARCHAR(20) NOT NULL, price NUMERIC(10,2), made DATE, open BOOLEAN DEFAULT TRUE);
INSERT INTO shop(id, name, price, made) VALUES (1, 'nails', 1.50, '2024-01-02'), (2, 'bolts', 20, NULL);
SELECT * FROM shop ORDER BY id;
\x on
SELECT * FROM shop WHERE id = 1;
\x off
\pset null '(null)'
SELECT id, made FROM shop ORDER BY id;
UPDATE shop SET price = price * 2 WHERE id = 1 RETURNING id, price;
DELETE FROM shop WHERE id = 99;
SELECT count(*) AS n, sum(price) AS total, max(name) AS last FROM shop \gset s_
\echo :s_n :s_total :s_last
SELECT name FROM shop WHERE id = :s_n AND name = :'s_last' OR id = 2;
SELECT 1 AS a \; SELECT 2 AS b;
VALUES (1, 'a'), (2, NULL);
SELECT 'DROP TABLE nosuch_' || id FROM shop ORDER BY id \gexec
\echo :SQLSTATE
SELECT id, name FROM shop ORDER BY id \g (format=unaligned)
DROP TABLE IF EXISTS nosuch;
CREATE TABLE IF NOT EXISTS shop(x INT);

\set VERBOSITY verbose
SELECT nosuch FROM shop;
\set VERBOSITY default
-- Declared types hold.
\set VERBOSITY sqlstate
INSERT INTO shop(id, name) VALUES (3000000000, 'more than an integer holds');
INSERT INTO shop(id, name) VALUES (3, 'longer than twenty characters');
\set VERBOSITY default
INSERT INTO shop(id, name, made) VALUES ('3', 'text of a number', '2024-02-29');
SELECT id + 1 AS n, made FROM shop WHERE id = '3';
\d shop
\dt shop
\dv shop
