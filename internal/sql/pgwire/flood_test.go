package pgwire

import (
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestWrongPasswordsAtSpeed: thousands of wrong proofs, and of clients that
// leave in the middle, cost neither memory nor goroutines once they are gone,
// are answered with 28P01 each, and do not keep others out.
func TestWrongPasswordsAtSpeed(t *testing.T) {
	f := newFake()
	_, addr := serve(t, f)
	first := msg('p', append(binary.BigEndian.AppendUint32([]byte("SCRAM-SHA-256\x00"), 11), "n,,n=,r=abc"...))
	guess := msg('p', []byte("c=biws,r=abc,p=AAAA"))
	hello := msgStartup(3<<16, "user", "SYSDBA")
	used := func() (heap uint64, goroutines int) {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // pools empty themselves over two collections
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse, runtime.NumGoroutine()
	}
	newRaw(t, addr).login()
	heap, goroutines := used()
	var refused atomic.Int32
	const clients, each = 16, 120
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for i := range each {
				nc, err := net.Dial("tcp", addr)
				if err != nil {
					t.Error(err)
					return
				}
				nc.SetDeadline(time.Now().Add(20 * time.Second))
				nc.Write(hello)
				if i%4 == 3 { // leaves
					nc.Close()
					continue
				}
				nc.Write(append(first, guess...))
				b, _ := io.ReadAll(nc)
				nc.Close()
				if n := len(b); n > 0 && containsState(b, "28P01") {
					refused.Add(1)
				}
			}
		})
	}
	newRaw(t, addr).login() // meanwhile
	wg.Wait()
	if want := int32(clients * each * 3 / 4); refused.Load() != want || f.results.Load() < want {
		t.Errorf("%d refused, %d told to the audit, want %d", refused.Load(), f.results.Load(), want)
	}
	for end := time.Now().Add(10 * time.Second); ; {
		h, g := used()
		if g <= goroutines+8 && h < heap+8<<20 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d bytes and %d goroutines before, %d and %d after", heap, goroutines, h, g)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// containsState finds an error of a state among messages.
func containsState(b []byte, state string) bool {
	for len(b) >= 5 {
		n := int(binary.BigEndian.Uint32(b[1:])) + 1
		if n > len(b) {
			return false
		}
		if b[0] == 'E' {
			for i := 5; i+6 < n; i++ {
				if b[i] == 'C' && string(b[i+1:i+6]) == state {
					return true
				}
			}
		}
		b = b[n:]
	}
	return false
}
