package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

const (
	topicPrefix = "nz.t." // topics; at most once
	logPrefix   = "nz.l." // logs; stored by the hub in a stream each
	streamName  = "NZ_"
	maxName     = 64
)

// checkName accepts what can be one token of a NATS subject, a stream's name and a file's name.
func checkName(kind, name string) error {
	if name == "" || len(name) > maxName || strings.ContainsFunc(name, notInName) {
		return fmt.Errorf("%s %q: want 1 to %d letters, digits, '-' or '_'", kind, name, maxName)
	}
	return nil
}

const nameBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

func checkMessage(kind, name string, data []byte) error {
	if err := checkName(kind, name); err != nil {
		return err
	}
	if len(data) > MaxMessage {
		return fmt.Errorf("%s %q: message of %d bytes, at most %d", kind, name, len(data), MaxMessage)
	}
	return nil
}

// serverName makes a NATS server name of a node's name: the same, unless it is long or has what a name there cannot
// have. Names that had to be changed keep apart by a hash, because a hub refuses two servers of one name, and a name
// stays the same for life, because JetStream knows its peers by it.
func serverName(node string) string {
	if node != "" && len(node) <= maxName && !strings.ContainsFunc(node, notInServerName) {
		return node
	}
	clean := strings.Map(func(r rune) rune {
		if notInServerName(r) {
			return '-'
		}
		return r
	}, node)
	sum := sha256.Sum256([]byte(node))
	return fmt.Sprintf("%.48s-%s", clean, hex.EncodeToString(sum[:6]))
}

// notInServerName refuses what is not printed, and the separators and wildcards of subjects but the dot of addresses.
func notInServerName(r rune) bool { return r <= ' ' || r > '~' || r == '*' || r == '>' }

func notInName(r rune) bool { return !strings.ContainsRune(nameBytes, r) }
