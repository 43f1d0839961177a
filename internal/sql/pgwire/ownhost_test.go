package pgwire

import (
	"net"
	"net/netip"
	"testing"
)

// TestOwnHost: a client that comes from the address it connects to is on this host,
// as one from loopback is.
func TestOwnHost(t *testing.T) {
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"127.0.0.1:7", "127.0.0.1:5236", true},
		{"[::1]:7", "[::1]:5236", true},
		{"10.78.0.1:7", "10.78.0.1:5236", true},
		{"10.78.0.1:7", "[::ffff:10.78.0.1]:5236", true},
		{"10.78.0.2:7", "10.78.0.1:5236", false},
		{"10.78.0.1:5236", "10.78.0.2:5236", false},
	} {
		var nc addrs
		nc.from, nc.to = net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.from)), net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.to))
		if got := ownHost(nc); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

type addrs struct {
	net.Conn
	from, to *net.TCPAddr
}

func (a addrs) RemoteAddr() net.Addr { return a.from }
func (a addrs) LocalAddr() net.Addr  { return a.to }
