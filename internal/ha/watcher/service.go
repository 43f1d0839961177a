package watcher

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"datawatch/internal/ha/fsm"
)

// serviceEvery is how often the public address is looked at.
const serviceEvery = time.Second

// watchService reports changes of the public network (INST_SERVICE_IP_CHECK).
// It looks whether or not the parameter is set: that can be changed at run time.
func (g *Guard) watchService() {
	t := g.deps.Clock.NewTicker(serviceEvery)
	defer t.Stop()
	was := ""
	for {
		ctx, cancel := context.WithTimeout(g.ctx, serviceEvery)
		why := g.deps.Unserved(ctx, g.cfg.ServiceHost)
		cancel()
		if why != was {
			was = why
			if !g.post(fsm.Service{Why: why}) {
				return
			}
		}
		select {
		case <-t.C:
		case <-g.ctx.Done():
			return
		}
	}
}

// card is a network interface with its addresses.
type card struct {
	name  string
	up    bool // enabled, and with a carrier
	addrs []netip.Addr
}

// unserved looks for a network card of this machine that has the address and a
// carrier. A name that cannot be resolved now says nothing about the card.
func unserved(ctx context.Context, host string) string {
	cards, err := cardsHere()
	if err != nil {
		return ""
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return judgeCards(cards, host, []netip.Addr{a})
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return ""
	}
	return judgeCards(cards, host, ips)
}

func cardsHere() ([]card, error) {
	l, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("network cards: %w", err)
	}
	var out []card
	for _, i := range l {
		c := card{name: i.Name, up: i.Flags&net.FlagUp != 0 && i.Flags&net.FlagRunning != 0}
		addrs, err := i.Addrs()
		if err != nil {
			continue // the card has just gone
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				c.addrs = append(c.addrs, p.Addr().Unmap())
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// judgeCards tells why none of the addresses of host can be reached.
func judgeCards(cards []card, host string, want []netip.Addr) string {
	why := "no network card has the address " + host
	for _, w := range want {
		w = w.Unmap().WithZone("")
		if w.IsUnspecified() || w.IsLoopback() {
			return ""
		}
		for _, c := range cards {
			for _, a := range c.addrs {
				if a.WithZone("") != w {
					continue
				}
				if c.up {
					return ""
				}
				why = "the network card " + c.name + " of " + host + " is down or has no carrier"
			}
		}
	}
	return why
}
