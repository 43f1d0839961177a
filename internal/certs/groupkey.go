package certs

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// maxKeys is how many keys a group may accept at a time: one in use, one that
// comes, one that goes, and one to spare.
const maxKeys = 4

// GroupKey is a secret shared by all programs of a group.
type GroupKey struct {
	ID      string // public: eight hex digits of a hash of the secret
	Secret  [32]byte
	Created time.Time
}

// GroupKeys are the keys of a group.key file. The first is used by whoever
// opens a connection, all are accepted.
type GroupKeys []GroupKey

// NewGroupKey makes a random key.
func NewGroupKey(now time.Time) GroupKey {
	k := GroupKey{Created: now.UTC().Truncate(time.Second)}
	rand.Read(k.Secret[:]) // never fails (Go 1.24)
	k.ID = k.id()
	return k
}

func (k GroupKey) id() string {
	sum := sha256.Sum256(append([]byte("datawatch group key id\x00"), k.Secret[:]...))
	return hex.EncodeToString(sum[:4])
}

// Find returns the key with that id.
func (ks GroupKeys) Find(id string) (GroupKey, bool) {
	for _, k := range ks {
		if k.ID == id {
			return k, true
		}
	}
	return GroupKey{}, false
}

// IDs lists the ids, for messages.
func (ks GroupKeys) IDs() string {
	var ids []string
	for _, k := range ks {
		ids = append(ids, k.ID)
	}
	return strings.Join(ids, ", ")
}

const keyHead = `# Datawatch group key: whoever has this file can speak for every program of the
# group. The first key is used, all are accepted; docs/operations.md tells how
# to change them while everything runs. Mode 0600, equal on every host.
`

const keyTag = "dwkey1"

// Format is the text of a group.key file.
func (ks GroupKeys) Format() []byte {
	var b strings.Builder
	b.WriteString(keyHead)
	for _, k := range ks {
		fmt.Fprintf(&b, "%s %s %s %s\n", keyTag, k.ID, base64.StdEncoding.EncodeToString(k.Secret[:]), k.Created.Format(time.RFC3339))
	}
	return []byte(b.String())
}

// ParseGroupKeys reads a group.key file; errors name file and line and never
// show the secret.
func ParseGroupKeys(name string, b []byte) (GroupKeys, error) {
	var out GroupKeys
	for n, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		bad := func(format string, a ...any) error {
			return fmt.Errorf("%s:%d: "+format, append([]any{name, n + 1}, a...)...)
		}
		f := strings.Fields(line)
		if f[0] != keyTag {
			return nil, bad("does not begin with %s: a line is `%s ID SECRET TIME`", keyTag, keyTag)
		}
		if len(f) != 4 {
			return nil, bad("%d fields instead of 4: a line is `%s ID SECRET TIME`", len(f), keyTag)
		}
		var k GroupKey
		raw, err := base64.StdEncoding.DecodeString(f[2])
		if err != nil || len(raw) != len(k.Secret) {
			return nil, bad("the secret is not %d bytes in base64", len(k.Secret))
		}
		copy(k.Secret[:], raw)
		k.ID = k.id()
		if f[1] != k.ID {
			return nil, bad("the secret is not that of key %s: the line was damaged", clip(f[1]))
		}
		if k.Created, err = time.Parse(time.RFC3339, f[3]); err != nil {
			return nil, bad("%q is not a time", clip(f[3]))
		}
		if _, twice := out.Find(k.ID); twice {
			return nil, bad("key %s stands here twice", k.ID)
		}
		if out = append(out, k); len(out) > maxKeys {
			return nil, bad("more than %d keys", maxKeys)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s holds no key; `dw certs key` makes one", name)
	}
	return out, nil
}

// LoadGroupKeys reads a group.key file.
func LoadGroupKeys(path string) (GroupKeys, error) {
	b, err := ReadSecret(path)
	if err != nil {
		return nil, err
	}
	return ParseGroupKeys(path, b)
}

func clip(s string) string {
	if len(s) > 32 {
		return s[:32] + "..."
	}
	return s
}
