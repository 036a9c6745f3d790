package localzone

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Who is what EC2 says about the instance that this process runs on.
type Who struct {
	Zone       string     // as the fleet names it: the Local Zone, or the Region for an ordinary Availability Zone
	ZoneID     string     // usw2-lax1-az1, usw2-az2; empty if EC2 does not say
	Region     string     // the parent Region
	InstanceID string     // i-0123456789abcdef0
	PrivateV4  netip.Addr // invalid on an IPv6-only instance
	PublicV4   netip.Addr // invalid without a public or Elastic address
	V6         netip.Addr // invalid without one
}

// Options of an Identity. The zero value asks the real service and logs nowhere.
type Options struct {
	Endpoint string // default: $AWS_EC2_METADATA_SERVICE_ENDPOINT, else http://169.254.169.254
	Log      *slog.Logger
}

// How often EC2 is asked. A machine off EC2 is asked a handful of packets every five minutes; an Elastic IP that is
// moved to a running instance is seen within the same time.
const (
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
	refresh    = 5 * time.Minute
)

// Identity finds out where this process runs. All methods may be called at any time from any goroutine.
type Identity struct {
	log   *slog.Logger
	fetch func(context.Context) (Who, error)

	who   atomic.Pointer[Who]
	err   atomic.Pointer[error]
	known chan struct{} // closed with the first answer
	once  sync.Once
}

// NewIdentity makes an Identity that knows nothing until Run has asked.
func NewIdentity(o Options) *Identity {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Identity{log: o.Log, fetch: newMetadata(o.Endpoint).who, known: make(chan struct{})}
}

// Run asks until ctx ends: with back-off while there is no answer, then every five minutes, since addresses change.
// It returns nil. What was learned stays when a later question fails.
func (i *Identity) Run(ctx context.Context) error {
	wait := firstRetry
	for ctx.Err() == nil {
		who, err := i.fetch(ctx)
		if ctx.Err() != nil {
			return nil
		}
		i.note(who, err)
		pause := refresh
		if err != nil {
			pause = wait/2 + rand.N(wait/2)
			wait = min(2*wait, lastRetry)
		} else {
			wait = firstRetry
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

// Get is the last answer; false if there was none yet.
func (i *Identity) Get() (Who, bool) {
	if w := i.who.Load(); w != nil {
		return *w, true
	}
	return Who{}, false
}

// Known is closed once Get has an answer.
func (i *Identity) Known() <-chan struct{} { return i.known }

// Err is why the last question had no answer; nil if it had one or none was asked yet. Its text says what to do.
func (i *Identity) Err() error {
	if e := i.err.Load(); e != nil {
		return *e
	}
	return nil
}

// note keeps an outcome and logs it when it is news.
func (i *Identity) note(who Who, err error) {
	before := i.Err()
	if err != nil {
		i.err.Store(&err)
		if before == nil || before.Error() != err.Error() {
			i.log.Info("ec2 metadata does not answer", "err", err)
		}
		return
	}
	i.err.Store(nil)
	old := i.who.Swap(&who)
	i.once.Do(func() { close(i.known) })
	if old == nil || *old != who {
		i.log.Info("ec2 identity", "zone", who.Zone, "zone_id", who.ZoneID, "region", who.Region, "instance", who.InstanceID,
			"private_v4", who.PrivateV4, "public_v4", who.PublicV4, "v6", who.V6)
	}
}
