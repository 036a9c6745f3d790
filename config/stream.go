package config

import (
	"errors"
	"net/url"
	"time"
)

func streamsShape(into *[]Stream) shape {
	return named[Stream]{into: into, name: nounName, fresh: defaultStream, item: func(s *Stream) shape { return s.shape() }}
}

func (s *Stream) shape() mapping {
	return mapping{
		must("listen", s.listenShape(), "udp:// or tcp://, and host:port."),
		must("origin", nounRef(&s.Origin, "the name of an origin"), "The servers it is relayed to."),
		key("proxy_protocol", s.proxyShape(), "Tells servers the client's address; v1 for tcp only."),
		key("idle", s.Idle.shape(), "When a silent session ends."),
		key("max_sessions", integer(&s.MaxSessions, 1, 10_000_000), "New sessions beyond it are refused."),
	}
}

func (s *Stream) listenShape() shape {
	json := matching(`(tcp|udp)://` + hostPortPattern)
	want := `udp://:7777 or tcp://127.0.0.1:7777`
	return scalar{want, func(text string) error {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "tcp" && u.Scheme != "udp" || u.Host == "" {
			return errors.New("is neither tcp:// nor udp:// with host:port")
		}
		if u.Path != "" || u.RawQuery != "" || u.User != nil || u.Fragment != "" {
			return errors.New("has more than host:port")
		}
		s.Network = u.Scheme
		s.Listen, err = parseListen(u.Host)
		return err
	}, json}
}

func (s *Stream) proxyShape() shape {
	var version string
	words := choice[string]{into: &version, words: []string{"off", "v1", "v2"}}
	return then{words, func(*decoder, *node) {
		s.ProxyProtocol = version
		if version == "off" {
			s.ProxyProtocol = ""
		}
	}}
}

func (i *StreamIdle) shape() mapping {
	return mapping{
		key("unreplied", duration(&i.Unreplied, time.Second, day), "The server has not answered yet (udp)."),
		key("established", duration(&i.Established, time.Second, 30*day), "Default 175s for udp, 1h for tcp."),
	}
}
