package stream

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseOOB(t *testing.T) {
	v4, v6 := netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8::10")
	ovfl := make([]byte, unix.CmsgSpace(4))
	copy(ovfl, []byte{byte(unix.CmsgLen(4)), 0, 0, 0, 0, 0, 0, 0, unix.SOL_SOCKET, 0, 0, 0, unix.SO_RXQ_OVFL, 0, 0, 0, 7})
	mapped := v4.As16()
	for _, c := range []struct {
		name string
		oob  []byte
		want received
	}{
		{"none", nil, received{}},
		{"v4", unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: 3, Spec_dst: v4.As4(), Addr: [4]byte{255, 255, 255, 255}}), received{local: v4}},
		{"v6", unix.PktInfo6(&unix.Inet6Pktinfo{Addr: v6.As16(), Ifindex: 3}), received{local: v6}},
		{"v4 on a v6 socket", unix.PktInfo6(&unix.Inet6Pktinfo{Addr: mapped}), received{local: v4}},
		{"drops, then v4", append(ovfl, unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: v4.As4()})...), received{v4, 7}},
		{"cut off", unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: v4.As4()})[:20], received{}},
	} {
		if got := parseOOB(c.oob); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

func FuzzParseOOB(f *testing.F) {
	f.Add(unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: 3}))
	f.Add(unix.PktInfo6(&unix.Inet6Pktinfo{Ifindex: 3}))
	f.Add([]byte{255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, oob []byte) { parseOOB(oob) })
}
