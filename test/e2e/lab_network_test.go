package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// network is a switch in user space: frames that a card sends are read from its
// TAP device and written to that of the card they are for. tc's netem is in few
// kernels of containers and virtual machines, TAP devices are in most.
type network struct {
	name string
	down atomic.Bool // the switch has failed

	mu    sync.Mutex
	cards []*card
	known map[[6]byte]*card
}

// card is a network card with its cable. Faults can be set at any time.
type card struct {
	net     *network
	machine *machine // nil: the clients'
	name    string
	f       *os.File

	noSend, noReceive atomic.Bool // the cable loses everything, one way each
	delay             atomic.Int64
	loss              atomic.Int32 // per mille of frames, each way

	mu    sync.Mutex
	lines map[*card]*line
}

// line carries delayed frames from one card to another, in their order.
type line struct {
	frames  chan delayed
	pending atomic.Int64
}

type delayed struct {
	due time.Time
	b   []byte
}

func newNetwork(name string) *network { return &network{name: name, known: map[[6]byte]*card{}} }

const (
	tunSetIff     = 0x400454ca
	tunSetCarrier = 0x400454e2
	cardMTU       = 9000
)

// plug adds a card to a machine, nil the test's own, and connects it.
func (n *network) plug(t *testing.T, m *machine, name, addr string) *card {
	t.Helper()
	c := &card{net: n, machine: m, name: name, lines: map[*card]*line{}}
	if err := m.do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		var req [40]byte // struct ifreq
		copy(req[:15], name)
		flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI)
		*(*uint16)(unsafe.Pointer(&req[16])) = flags
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), tunSetIff, uintptr(unsafe.Pointer(&req[0]))); e != 0 {
			return fmt.Errorf("TUNSETIFF %s: %w", name, e)
		}
		c.f = os.NewFile(uintptr(fd), name)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	m.ip(t, fmt.Sprintf("link set dev %s mtu %d up", name, cardMTU))
	m.ip(t, fmt.Sprintf("addr add %s dev %s", addr, name))
	n.mu.Lock()
	n.cards = append(n.cards, c)
	n.mu.Unlock()
	go c.send()
	return c
}

// send carries what the card sends until its device is closed, with the
// process.
func (c *card) send() {
	buf := make([]byte, cardMTU+64)
	for {
		k, err := c.f.Read(buf)
		if err != nil {
			return
		}
		if k < 14 {
			continue
		}
		b := buf[:k]
		for _, to := range c.net.route(c, b) {
			c.carry(to, b)
		}
	}
}

// route learns where the sender is and finds where a frame goes.
func (n *network) route(from *card, b []byte) []*card {
	dst, src := [6]byte(b[:6]), [6]byte(b[6:12])
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known[src] = from
	if to := n.known[dst]; to != nil && dst[0]&1 == 0 {
		return []*card{to}
	}
	var all []*card
	for _, c := range n.cards {
		if c != from {
			all = append(all, c)
		}
	}
	return all
}

func (c *card) carry(to *card, b []byte) {
	if c.net.down.Load() || c.noSend.Load() || to.noReceive.Load() {
		return
	}
	if loss := c.loss.Load() + to.loss.Load(); loss > 0 && rand.Int32N(1000) < loss {
		return
	}
	d := time.Duration(c.delay.Load() + to.delay.Load())
	l := c.line(to)
	if d == 0 && l.pending.Load() == 0 {
		_, _ = to.f.Write(b) // a card that is off takes nothing
		return
	}
	l.pending.Add(1)
	select {
	case l.frames <- delayed{time.Now().Add(d), append([]byte(nil), b...)}:
	default: // a full buffer loses frames, as in any switch
		l.pending.Add(-1)
	}
}

func (c *card) line(to *card) *line {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lines[to]
	if l == nil {
		l = &line{frames: make(chan delayed, 4096)}
		c.lines[to] = l
		go func() {
			for d := range l.frames {
				time.Sleep(time.Until(d.due))
				if !c.net.down.Load() && !to.noReceive.Load() && !c.noSend.Load() {
					_, _ = to.f.Write(d.b)
				}
				l.pending.Add(-1)
			}
		}()
	}
	return l
}

// cut is how a card fails.
type cut string

const (
	unplugged cut = "unplugged" // no carrier
	disabled  cut = "disabled"  // ip link set down
	silent    cut = "silent"    // nothing arrives any more, and nothing says so
)

// fail makes the card fail and returns what repairs it.
func (c *card) fail(t *testing.T, how cut) (repair func()) {
	t.Helper()
	switch how {
	case unplugged:
		c.carrier(t, 0)
		c.noSend.Store(true)
		c.noReceive.Store(true)
		return func() { c.noSend.Store(false); c.noReceive.Store(false); c.carrier(t, 1) }
	case disabled:
		c.machine.ip(t, "link set dev "+c.name+" down")
		return func() { c.machine.ip(t, "link set dev "+c.name+" up") }
	default:
		c.noSend.Store(true)
		c.noReceive.Store(true)
		return func() { c.noSend.Store(false); c.noReceive.Store(false) }
	}
}

func (c *card) carrier(t *testing.T, on int32) {
	t.Helper()
	rc, err := c.f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var e unix.Errno
	if err := rc.Control(func(fd uintptr) {
		_, _, e = unix.Syscall(unix.SYS_IOCTL, fd, tunSetCarrier, uintptr(unsafe.Pointer(&on)))
	}); err != nil || e != 0 {
		t.Fatalf("TUNSETCARRIER %s: %v %v", c.name, err, e)
	}
}
