package stream_test

import (
	"context"
	"net"
	"testing"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/origin"
	"github.com/nearzone/nearzone/proxy/stream"
)

// BenchmarkUDPRoundTrip is one datagram of 100 bytes there and back, its server and client included.
func BenchmarkUDPRoundTrip(b *testing.B) {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := server.(*net.UDPConn).ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			server.(*net.UDPConn).WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	st := udpMatch
	st.Listen = ":0" // the wildcard costs most
	cfg := configOf([]config.Stream{st}, map[string][]string{"arena": {server.LocalAddr().String()}})
	origins, err := origin.New(cfg, origin.Deps{})
	if err != nil {
		b.Fatal(err)
	}
	s, err := stream.Listen(cfg, stream.Deps{Origins: origins})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.Run(ctx); close(done) }()
	defer func() { stop(); <-done }()
	_, port, _ := net.SplitHostPort(s.Status()[0].Listen)
	c, err := net.Dial("udp", "127.0.0.1:"+port)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}
