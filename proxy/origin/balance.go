package origin

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"

	"github.com/nearzone/nearzone/config"
)

type clientKey struct{}

// WithClient says which client a request is for, for `balance: hash(client)`.
func WithClient(ctx context.Context, client netip.Addr) context.Context {
	return context.WithValue(ctx, clientKey{}, client)
}

// stackServers is how many servers a choice is made from without an allocation.
const stackServers = 16

// pick chooses the server for an attempt; nil if there is none. servers is not empty.
func (p *Pool) pick(req *http.Request, servers []*server) *server {
	if len(servers) == 1 {
		return servers[0]
	}
	switch p.cfg.Balance.Policy {
	case config.RoundRobin:
		return servers[p.turn.Add(1)%uint64(len(servers))]
	case config.PolicyHash:
		if k := hashKey(req, p.cfg.Balance); k != "" {
			return rendezvous(hashOf(k), servers)
		}
	}
	return lessBusy(servers)
}

// lessBusy takes the less busy of two servers chosen at random: nearly as even as the least busy of all, and
// not the same choice for everybody at once.
func lessBusy(servers []*server) *server {
	i := rand.IntN(len(servers))
	j := rand.IntN(len(servers) - 1)
	if j >= i {
		j++
	}
	if servers[j].inFlight.Load() < servers[i].inFlight.Load() {
		return servers[j]
	}
	return servers[i]
}

// rendezvous takes the server with the highest score for a key (highest random weight): when one goes, only its
// keys move.
func rendezvous(key uint64, servers []*server) *server {
	return slices.MaxFunc(servers, func(a, b *server) int { return byScore(key, a, b) })
}

func byScore(key uint64, a, b *server) int {
	x, y := mix(key^a.seed), mix(key^b.seed)
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

// hashKey is what a request is hashed by; empty when it has no such thing, and then it goes to the less busy.
func hashKey(req *http.Request, b config.Balance) string {
	switch b.By {
	case "cookie":
		if c, err := req.Cookie(b.Key); err == nil {
			return c.Value
		}
	case "header":
		return req.Header.Get(b.Key)
	case "client":
		if addr, ok := req.Context().Value(clientKey{}).(netip.Addr); ok {
			return addr.Unmap().String()
		}
	}
	return ""
}
