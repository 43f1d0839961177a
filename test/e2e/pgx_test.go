package e2e

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"datawatch/internal/app/dw"
)

// pgxModes writes and reads a value of every common type in every way that pgx
// can run a query: text and binary, described, cached, unprepared, simple.
func pgxModes(t *testing.T, sys *dw.System) {
	mustExec(t, sys, `CREATE TABLE types(id INT PRIMARY KEY, i2 SMALLINT, i4 INT, i8 BIGINT, f4 REAL, f8 DOUBLE PRECISION, n NUMERIC(20,4), b BOOLEAN,
		t TEXT, v VARCHAR(20), c CHAR(4), y BYTEA, d DATE, ts TIMESTAMP, tz TIMESTAMPTZ, u UUID, j JSON)`)
	ts := time.Date(2024, 2, 29, 23, 59, 58, 123456000, time.UTC)
	day := time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC)
	const text, uuid, js = "täxt 'quoted' \\ \"and\"", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", `{"a": [1, null]}`
	bytes := []byte{0, 1, 0xff, '\\'}
	want := fmt.Sprint(-7, math.MinInt32, math.MaxInt64, 1.5, 2.25e100, "1234567.2345", true, text, "var", "char", bytes, day, ts, ts, uuid, js)
	id := 0
	for _, m := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		t.Run(m.String(), func(t *testing.T) {
			c := connect(t, sys.DBs[0].Port, func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = m })
			for range 2 {
				id++
				if _, err := c.Exec(t.Context(), `INSERT INTO types VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17)`,
					id, int16(-7), int32(math.MinInt32), int64(math.MaxInt64), float32(1.5), 2.25e100, "1234567.2345", true,
					text, "var", "char", bytes, day, ts, ts, uuid, js); err != nil {
					t.Fatal(err)
				}
				var (
					i2         int16
					i4         int32
					i8         int64
					f4         float32
					f8         float64
					n, s, v, h string
					b          bool
					y          []byte
					d, t1, t2  time.Time
					u, j       string
				)
				if err := c.QueryRow(t.Context(), `SELECT i2,i4,i8,f4,f8,n::text,b,t,v,c,y,d,ts,tz,u::text,j::text FROM types WHERE id = $1`, id).
					Scan(&i2, &i4, &i8, &f4, &f8, &n, &b, &s, &v, &h, &y, &d, &t1, &t2, &u, &j); err != nil {
					t.Fatal(err)
				}
				if got := fmt.Sprint(i2, i4, i8, f4, f8, n, b, s, v, h, y, d.UTC(), t1.UTC(), t2.UTC(), u, j); got != want {
					t.Errorf("\n got %s\nwant %s", got, want)
				}
				// Each value finds its row again as a parameter, or as the literal
				// that the simple protocol makes of it.
				var found int
				if err := c.QueryRow(t.Context(), `SELECT count(*) FROM types WHERE id = $1 AND i8 = $2 AND b = $3 AND t = $4 AND y = $5 AND d = $6 AND ts = $7 AND tz = $8 AND u = $9`,
					id, int64(math.MaxInt64), true, text, bytes, day, ts, ts, uuid).Scan(&found); err != nil || found != 1 {
					t.Errorf("found again %d times, want 1 (%v)", found, err)
				}
			}
			id++
			if _, err := c.Exec(t.Context(), `INSERT INTO types(id, i2, t, y, ts) VALUES ($1, $2, $3, $4, $5)`, id, (*int16)(nil), (*string)(nil), []byte(nil), (*time.Time)(nil)); err != nil {
				t.Fatal(err)
			}
			var nulls int
			if err := c.QueryRow(t.Context(), `SELECT count(*) FROM types WHERE id = $1 AND i2 IS NULL AND t IS NULL AND y IS NULL AND ts IS NULL AND u IS NULL`, id).Scan(&nulls); err != nil || nulls != 1 {
				t.Errorf("NULLs: %d %v", nulls, err)
			}
			_, err := c.Exec(t.Context(), `INSERT INTO types(id) VALUES ($1)`, id)
			wantState(t, err, "23505")
			if err := c.Ping(t.Context()); err != nil {
				t.Errorf("after an error: %v", err)
			}
		})
	}
	rows, err := connect(t, sys.DBs[0].Port).Query(t.Context(), "SELECT i2,i4,i8,f4,f8,n,b,t,v,c,y,d,ts,tz,u,j, 1 AS one, 'x' AS x, count(*) AS n FROM types LIMIT 0")
	if err != nil {
		t.Fatal(err)
	}
	var oids []uint32
	for _, f := range rows.FieldDescriptions() {
		oids = append(oids, f.DataTypeOID)
	}
	rows.Close()
	if want := []uint32{21, 23, 20, 700, 701, 1700, 16, 25, 1043, 1042, 17, 1082, 1114, 1184, 2950, 114, 23, 25, 20}; !slices.Equal(oids, want) {
		t.Errorf("types of the columns: %v, want %v", oids, want)
	}
}

func pgxBatch(t *testing.T, sys *dw.System) {
	mustExec(t, sys, "CREATE TABLE batch(a INT PRIMARY KEY, b TEXT)")
	c := connect(t, sys.DBs[0].Port)
	b := &pgx.Batch{}
	for i := range 200 {
		b.Queue("INSERT INTO batch VALUES ($1, $2)", i, fmt.Sprint("row ", i))
	}
	b.Queue("SELECT count(*) FROM batch")
	mustExec(t, sys, "CREATE TABLE bulk(a BIGINT PRIMARY KEY, b TEXT, c NUMERIC(10,2), d TIMESTAMP, e BOOLEAN, f BYTEA)")
	at := time.Date(2024, 2, 29, 1, 2, 3, 4000, time.UTC)
	if n, err := c.CopyFrom(t.Context(), pgx.Identifier{"bulk"}, []string{"a", "b", "c", "d", "e", "f"}, pgx.CopyFromSlice(5000, func(i int) ([]any, error) {
		return []any{int64(i), fmt.Sprint("row ", i), fmt.Sprintf("%d.125", i), at, i%2 == 0, []byte{0, byte(i)}}, nil
	})); err != nil || n != 5000 {
		t.Errorf("binary COPY: %d rows, %v", n, err)
	}
	var sum string
	var last time.Time
	if err := c.QueryRow(t.Context(), "SELECT sum(c)::text, max(d) FROM bulk WHERE e AND f = $1 AND a < 256", []byte{0, 2}).Scan(&sum, &last); err != nil || sum != "2.13" || !last.Equal(at) {
		t.Errorf("after binary COPY: %s %v %v", sum, last, err)
	}
	res := c.SendBatch(t.Context(), b)
	for range 200 {
		if _, err := res.Exec(); err != nil {
			t.Fatal(err)
		}
	}
	var n int
	if err := res.QueryRow().Scan(&n); err != nil || n != 200 {
		t.Errorf("count within the batch: %d %v", n, err)
	}
	if err := res.Close(); err != nil {
		t.Error(err)
	}
	// A failing statement takes the whole batch, an implicit transaction, back.
	b = &pgx.Batch{}
	b.Queue("INSERT INTO batch VALUES (1000, 'first')")
	b.Queue("INSERT INTO batch VALUES (1, 'again')")
	b.Queue("INSERT INTO batch VALUES (1001, 'last')")
	wantState(t, c.SendBatch(t.Context(), b).Close(), "23505")
	if err := c.QueryRow(t.Context(), "SELECT count(*) FROM batch").Scan(&n); err != nil || n != 200 {
		t.Errorf("after a failed batch: %d rows, want 200 (%v)", n, err)
	}
}
