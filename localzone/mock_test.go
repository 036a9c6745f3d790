package localzone_test

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/nearzone/nearzone/localzone"
)

// mockBinary finds AWS's own amazon-ec2-metadata-mock.
func mockBinary(t *testing.T) string {
	if path := os.Getenv("NEARZONE_EC2_METADATA_MOCK"); path != "" {
		return path
	}
	path, err := exec.LookPath("ec2-metadata-mock")
	if err != nil {
		t.Skip("ec2-metadata-mock is not installed, so the proof against it is skipped; " +
			"go install github.com/aws/amazon-ec2-metadata-mock/cmd/ec2-metadata-mock@v1.13.0, and put it in PATH or its path in NEARZONE_EC2_METADATA_MOCK")
	}
	return path
}

const mockConfig = `{
  "metadata": {"values": {
    "placement-availability-zone": "us-west-2-lax-1a",
    "placement-availability-zone-id": "usw2-lax1-az1",
    "placement-region": "us-west-2",
    "public-ipv4": "203.0.113.10"
  }},
  "dynamic": {"values": {"instance-identity-document": {
    "availabilityZone": "us-west-2-lax-1a", "region": "us-west-2", "instanceId": "i-0123456789abcdef0", "privateIp": "10.0.1.10"
  }}}
}`

func TestIdentityAgainstTheMetadataMock(t *testing.T) {
	binary := mockBinary(t)
	address := freeAddress(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "mock.json")
	if err := os.WriteFile(file, []byte(mockConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	mock := exec.Command(binary, "--imdsv2", "--hostname", "127.0.0.1", "--port", port, "--config-file", file)
	mock.Env = append(os.Environ(), "HOME="+dir)
	if err := mock.Start(); err != nil {
		t.Fatalf("start %s: %v", binary, err)
	}
	t.Cleanup(func() { mock.Process.Kill(); mock.Wait() })
	awaitListener(t, address)

	who := known(t, run(t, localzone.Options{Endpoint: "http://" + address}))
	if who.Zone != "us-west-2-lax-1a" || who.ZoneID != "usw2-lax1-az1" || who.Region != "us-west-2" || who.InstanceID != "i-0123456789abcdef0" ||
		who.PrivateV4 != netip.MustParseAddr("10.0.1.10") || who.PublicV4 != netip.MustParseAddr("203.0.113.10") {
		t.Errorf("got %+v", who)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func awaitListener(t *testing.T, address string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	t.Fatalf("nothing listens on %s", address)
}
