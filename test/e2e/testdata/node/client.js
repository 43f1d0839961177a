// What an application does with node-postgres; run by TestNodePostgres.
const assert = require('assert');
const { Client, Pool, types } = require('pg');
const config = { host: '127.0.0.1', port: +process.env.PGPORT, user: 'SYSDBA', password: 'SYSDBA', database: 'DAMENG' };

async function main() {
  const c = new Client(config);
  await c.connect();
  await c.query('CREATE TABLE node_t(id serial PRIMARY KEY, name varchar(20) NOT NULL, n numeric(10,2), ok boolean, at timestamptz, d date, j jsonb, b bytea, f float8, big bigint)');
  const at = new Date('2024-02-29T12:34:56.789Z');
  const bytes = Buffer.from([0, 1, 255]);
  let r = await c.query('INSERT INTO node_t(name, n, ok, at, j, b, f, big) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING *',
    ['first', '12.34', true, at, { a: [1, null] }, bytes, 1.5, '9007199254740993']);
  assert.strictEqual(r.rowCount, 1);
  const row = r.rows[0];
  assert.deepStrictEqual([row.id, row.name, row.n, row.ok, row.at.getTime(), row.j, row.f, row.big],
    ['1', 'first', '12.34', true, at.getTime(), { a: [1, null] }, 1.5, '9007199254740993']);
  assert.ok(row.b.equals(bytes));

  // Named statements, arrays, NULL.
  for (let i = 0; i < 3; i++) {
    r = await c.query({ name: 'by id', text: 'SELECT name, d FROM node_t WHERE id = ANY($1)', values: [[1, 2]] });
    assert.deepStrictEqual(r.rows, [{ name: 'first', d: null }]);
  }
  // Row mode, types of columns, several statements.
  r = await c.query({ text: "SELECT 1 AS one, 'x' AS x, true AS t, 2.5::float8 AS f", rowMode: 'array' });
  assert.deepStrictEqual(r.rows, [[1, 'x', true, 2.5]]);
  r = await c.query('SELECT 1 AS a; SELECT 2 AS b');
  assert.deepStrictEqual(r.map((x) => x.rows[0]), [{ a: 1 }, { b: 2 }]);

  // Transactions and errors.
  await c.query('BEGIN');
  await c.query("INSERT INTO node_t(name) VALUES ('second')");
  await assert.rejects(c.query('INSERT INTO node_t(id, name) VALUES (1, $1)', ['again']), (e) => e.code === '23505');
  await assert.rejects(c.query('SELECT 1'), (e) => e.code === '25P02');
  await c.query('ROLLBACK');
  await assert.rejects(c.query('SELECT nosuch FROM node_t'), (e) => e.code === '42703' && Number(e.position) === 8);
  await assert.rejects(c.query('INSERT INTO node_t(name) VALUES ($1)', ['x'.repeat(30)]), (e) => e.code === '22001');
  r = await c.query('SELECT count(*) AS n FROM node_t');
  assert.strictEqual(r.rows[0].n, '1');

  // Queries sent without waiting for each other.
  const many = await Promise.all([...Array(50).keys()].map((i) => c.query('SELECT $1::int AS i', [i])));
  assert.deepStrictEqual(many.map((x) => x.rows[0].i), [...Array(50).keys()]);
  await c.end();

  // A pool, and a query that is too slow.
  const pool = new Pool({ ...config, max: 5, statement_timeout: 200 });
  const got = await Promise.all([...Array(40).keys()].map((i) => pool.query('SELECT $1::int * 2 AS x', [i])));
  assert.strictEqual(got[39].rows[0].x, '78');
  await assert.rejects(pool.query('WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM s) SELECT count(*) FROM s'), (e) => e.code === '57014');
  await pool.end();

  await assert.rejects(new Client({ ...config, password: 'wrong' }).connect(), (e) => e.code === '28P01');
  console.log('node-postgres works');
}
main().catch((e) => { console.error(e); process.exit(1); });
