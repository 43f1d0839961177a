package pgwire

import (
	"bytes"
	"encoding/binary"
	"io"
	"strconv"
	"sync"
	"testing"
)

// readReady reads to the end of a ReadyForQuery into buf.
func (r *raw) readReady(buf []byte) {
	n := 0
	for {
		m, err := r.nc.Read(buf[n:])
		if err != nil {
			r.t.Fatal(err)
		}
		if n += m; n >= 6 && buf[n-6] == 'Z' && binary.BigEndian.Uint32(buf[n-5:]) == 5 {
			return
		}
	}
}

// BenchmarkSelect is one prepared select of one row over loopback: Bind,
// Execute, Sync, with a client that does nothing but send and read.
func BenchmarkSelect(b *testing.B) {
	for _, clients := range []int{1, 64} {
		b.Run(strconv.Itoa(clients), func(b *testing.B) {
			_, addr := serve(b, newFake())
			req := bytes.Join([][]byte{msg('B', []byte("\x00s\x00\x00\x01\x00\x01\x00\x01\x00\x00\x00\x04\x00\x00\x00\x07\x00\x01\x00\x01")), msgExecute("", 0), msgSync()}, nil)
			rs := make([]*raw, clients)
			for i := range rs {
				rs[i] = newRaw(b, addr)
				rs[i].login()
				rs[i].send(msgParse("s", "echo 23"), msgSync())
				rs[i].readReady(make([]byte, 4096))
			}
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for i, r := range rs {
				n := b.N / clients
				if i < b.N%clients {
					n++
				}
				wg.Go(func() {
					buf := make([]byte, 4096)
					for range n {
						r.nc.Write(req)
						r.readReady(buf)
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "queries/s")
		})
	}
}

// BenchmarkRows is the cost of a row in a long result.
func BenchmarkRows(b *testing.B) {
	_, addr := serve(b, newFake())
	r := newRaw(b, addr)
	r.login()
	b.ReportAllocs()
	b.ResetTimer()
	r.send(msgQuery("rows " + strconv.Itoa(b.N)))
	buf := make([]byte, 64<<10)
	var tail [6]byte
	for {
		n, err := r.nc.Read(buf)
		if err != nil && err != io.EOF {
			b.Fatal(err)
		}
		all := append(tail[:], buf[:n]...)
		copy(tail[:], all[len(all)-6:])
		if tail[0] == 'Z' && tail[4] == 5 {
			return
		}
	}
}
