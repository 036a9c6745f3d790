package healthcheck_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/nearzone/nearzone/healthcheck"
)

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := healthcheck.NewChecker(nil, nil)
	c.Set([]healthcheck.Target{{ID: "a", Fall: 1}, {ID: "b"}})
	c.Report("a", false)
	q := healthcheck.NewQuorum(time.Minute, nil)
	q.Observe(healthcheck.View{Node: "pdx1", Zone: "pdx", Seq: 1, Peers: map[string]bool{"lax1": false}}, time.Now())
	reg.MustRegister(c.Collector("peers"), q.Collector())
	want := `
# HELP nearzone_healthcheck_node_up Whether the node is up by the votes of the fleet's zones.
# TYPE nearzone_healthcheck_node_up gauge
nearzone_healthcheck_node_up{node="lax1",zone=""} 0
nearzone_healthcheck_node_up{node="pdx1",zone="pdx"} 1
# HELP nearzone_healthcheck_target_up Whether the target is up by its probes and traffic.
# TYPE nearzone_healthcheck_target_up gauge
nearzone_healthcheck_target_up{kind="peers",target="a"} 0
nearzone_healthcheck_target_up{kind="peers",target="b"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) != 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}
