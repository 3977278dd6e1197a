package engine

import (
	"fmt"
	"net"
	"os"
	"slices"

	"causeway/codec"
	"causeway/engine/link"
)

// CheckRouters tells what is wrong with URLs of other routers for Config.DrainTo.
func CheckRouters(urls []string) error {
	if len(urls) > codec.GoodbyeRoutersMax {
		return fmt.Errorf("%d URLs; at most %d can be named", len(urls), codec.GoodbyeRoutersMax)
	}
	for _, url := range urls {
		_, port, err := codec.ParseURL(url)
		if err != nil {
			return err
		}
		if port == "0" {
			return fmt.Errorf("URL %q: nobody can connect to port 0", url)
		}
	}
	return nil
}

// listening is where nodes connect.
type listening struct {
	asked string // host:port, as Listen was given it
	*link.Listener
}

// isOwn tells whether host and port lead to the listener, as far as that can be
// known without asking anybody.
func (l listening) isOwn(host, port string) bool {
	askedHost, askedPort, _ := net.SplitHostPort(l.asked)
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok || port != fmt.Sprint(addr.Port) && port != askedPort {
		return false
	}
	ip := net.ParseIP(host)
	if ip == nil {
		name, err := os.Hostname()
		return host == askedHost || host == "localhost" && (addr.IP.IsUnspecified() || addr.IP.IsLoopback()) ||
			err == nil && host == name && addr.IP.IsUnspecified()
	}
	if !addr.IP.IsUnspecified() {
		return ip.Equal(addr.IP)
	}
	own, err := net.InterfaceAddrs()
	return ip.IsLoopback() || ip.IsUnspecified() || err == nil && slices.ContainsFunc(own, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(ip)
	})
}

// withoutOwn returns the URLs that don't lead to one of the listeners, each once.
func withoutOwn(urls []string, listeners []listening) (others []string) {
	for _, url := range urls {
		host, port, err := codec.ParseURL(url)
		if err != nil || slices.Contains(others, url) || slices.ContainsFunc(listeners, func(l listening) bool { return l.isOwn(host, port) }) {
			continue
		}
		others = append(others, url)
	}
	return others
}
