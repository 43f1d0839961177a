package dw

import (
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"datawatch/internal/certs"
)

const certsUsage = `dw certs: certificates and keys for TLS (docs/operations.md)

  dw certs ca    [-dir ssl] [-name NAME] [-days 3650] [-force | -next | -retire]
                 makes the authority: ca.crt, for every host, and ca.key, which
                 stays here. -next makes its successor beside it, -retire drops
                 all but the newest
  dw certs issue [-dir ssl] -oguid N [-host HOST,HOST] [-monitor] [-days 825] [-force] NAME...
                 makes NAME.crt and NAME.key, of an instance (and its watcher)
                 or a monitor; HOSTs are what SQL clients connect to
  dw certs renew [-dir ssl] [-days 825] [NAME...]
                 the same again with a new key and new dates; all without NAME
  dw certs key   [-dir ssl] [-add | -use | -drop | -force]
                 makes a group key: group.key, for every host. -add appends the
                 next one, -use puts it first, -drop removes the others
  dw certs show  [-dir ssl]
                 what is there, and when it ends
`

// certsOptions are the flags of dw certs.
type certsOptions struct {
	dir, name, hosts          string
	days                      int
	oguid                     uint
	force, next, retire       bool
	monitor, add, use, remove bool
	names                     []string
}

// certsCommand runs `dw certs ...`.
func certsCommand(args []string, now time.Time, out io.Writer) error {
	if len(args) == 0 || args[0] == "help" {
		fmt.Fprint(out, certsUsage)
		return nil
	}
	var o certsOptions
	fl := flag.NewFlagSet("certs", flag.ContinueOnError)
	fl.SetOutput(io.Discard)
	fl.StringVar(&o.dir, "dir", "ssl", "")
	run, takes := certsActions(args[0], fl, &o)
	if run == nil {
		return usageError{fmt.Errorf("no such command `dw certs %s`; there are ca, issue, renew, key and show", args[0])}
	}
	// Names and flags in any order.
	for rest := args[1:]; ; {
		if err := fl.Parse(rest); errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(out, certsUsage)
			return nil
		} else if err != nil {
			return usageError{err}
		}
		if rest = fl.Args(); len(rest) == 0 {
			break
		}
		o.names, rest = append(o.names, rest[0]), rest[1:]
	}
	if !takes && len(o.names) > 0 {
		return usageError{fmt.Errorf("unexpected %q", strings.Join(o.names, " "))}
	}
	for _, n := range o.names {
		if n != filepath.Base(n) || n == "." || n == ".." || strings.EqualFold(n, "ca") || len(n) > 128 {
			return usageError{fmt.Errorf("%q cannot be the name of a certificate", n)}
		}
	}
	if fl.Lookup("days") != nil && (o.days < 1 || o.days > 36500) {
		return usageError{fmt.Errorf("-days %d: must be 1 to 36500", o.days)}
	}
	return run(&o, now, out)
}

// certsActions declares the flags of an action and returns it, and whether it
// takes names.
func certsActions(what string, fl *flag.FlagSet, o *certsOptions) (run func(*certsOptions, time.Time, io.Writer) error, names bool) {
	switch what {
	case "ca":
		fl.StringVar(&o.name, "name", "", "")
		fl.IntVar(&o.days, "days", certs.CADays, "")
		fl.BoolVar(&o.force, "force", false, "")
		fl.BoolVar(&o.next, "next", false, "")
		fl.BoolVar(&o.retire, "retire", false, "")
		return certsCA, false
	case "issue":
		fl.UintVar(&o.oguid, "oguid", 0, "")
		fl.StringVar(&o.hosts, "host", "", "")
		fl.BoolVar(&o.monitor, "monitor", false, "")
		fl.IntVar(&o.days, "days", certs.CertDays, "")
		fl.BoolVar(&o.force, "force", false, "")
		return certsIssue, true
	case "renew":
		fl.IntVar(&o.days, "days", certs.CertDays, "")
		return certsRenew, true
	case "key":
		fl.BoolVar(&o.add, "add", false, "")
		fl.BoolVar(&o.use, "use", false, "")
		fl.BoolVar(&o.remove, "drop", false, "")
		fl.BoolVar(&o.force, "force", false, "")
		return certsKey, false
	case "show":
		return certsShow, false
	}
	return nil, false
}

// exists reports a file that must not be overwritten.
func exists(paths ...string) (string, error) {
	for _, p := range paths {
		if _, err := os.Lstat(p); err == nil {
			return p, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return p, err
		}
	}
	return "", nil
}

func oneOf(flags ...bool) bool {
	n := 0
	for _, f := range flags {
		if f {
			n++
		}
	}
	return n <= 1
}

func certsCA(o *certsOptions, now time.Time, out io.Writer) error {
	crt, key := filepath.Join(o.dir, certs.CACertFile), filepath.Join(o.dir, certs.CAKeyFile)
	if !oneOf(o.force, o.next, o.retire) {
		return usageError{errors.New("-force, -next and -retire exclude each other")}
	}
	if o.retire {
		return retireCA(o, out)
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	if o.name == "" {
		o.name = "Datawatch authority of " + now.UTC().Format("2006-01-02 15:04:05")
	}
	p, err := certs.NewCA(o.name, now, o.days)
	if err != nil {
		return err
	}
	if o.next {
		if _, err := certs.LoadAuthority(o.dir); err != nil {
			return err
		}
		old, err := certs.Read(crt)
		if err != nil {
			return err
		}
		p.Cert = append(p.Cert, old...)
		if err := os.Rename(key, key+".old"); err != nil {
			return err
		}
	} else if there, err := exists(crt, key); err != nil {
		return err
	} else if there != "" && !o.force {
		return fmt.Errorf("%w: %s is there already. -next makes a successor while everything runs; -force replaces it, and every certificate signed by it is worth nothing then", errState, there)
	}
	if err := certs.WritePair(o.dir, "ca", p); err != nil {
		return err
	}
	if o.next {
		fmt.Fprintf(out, "made authority %q beside the former one.\n1. copy %s to every host\n2. `dw certs renew -dir %s`, copy every NAME.crt and NAME.key to its host\n3. `dw certs ca -dir %s -retire`, copy %s to every host\n", o.name, crt, o.dir, o.dir, crt)
		return nil
	}
	fmt.Fprintf(out, "made authority %q, until %s.\n%s goes to every host; %s stays here, keep it safe.\n", o.name, now.AddDate(0, 0, o.days).Format("2006-01-02"), crt, key)
	return nil
}

// retireCA leaves the newest authority alone.
func retireCA(o *certsOptions, out io.Writer) error {
	a, err := certs.LoadAuthority(o.dir)
	if err != nil {
		return err
	}
	path := filepath.Join(o.dir, certs.CACertFile)
	cas, err := certs.LoadCAs(path)
	if err != nil {
		return err
	}
	for _, l := range certFiles(o.dir) {
		if c, err := leaf(l); err == nil && c.CheckSignatureFrom(a.Cert) != nil {
			return fmt.Errorf("%w: %s is still signed by %q; `dw certs renew` it first", errState, l, c.Issuer.CommonName)
		}
	}
	if err := certs.WriteFile(path, certs.EncodeCert(a.Cert), 0o644); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(o.dir, certs.CAKeyFile+".old")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fmt.Fprintf(out, "%d former authorities are dropped; copy %s to every host\n", len(cas)-1, path)
	return nil
}

func certsIssue(o *certsOptions, now time.Time, out io.Writer) error {
	switch {
	case len(o.names) == 0:
		return usageError{errors.New("give the NAME of an instance or a monitor")}
	case o.oguid == 0 || o.oguid > 2147483647:
		return usageError{errors.New("-oguid: the number of the group is needed, as in INST_OGUID")}
	}
	a, err := certs.LoadAuthority(o.dir)
	if err != nil {
		return err
	}
	role := certs.Instance
	if o.monitor {
		role = certs.Monitor
	}
	for _, n := range o.names {
		there, err := exists(filepath.Join(o.dir, n+".crt"), filepath.Join(o.dir, n+".key"))
		if err != nil {
			return err
		}
		if there != "" && !o.force {
			return fmt.Errorf("%w: %s is there already; `dw certs renew %s` makes it anew, -force replaces it", errState, there, n)
		}
		r := certs.Request{Identities: []certs.Identity{{OGUID: uint32(o.oguid), Role: role, Name: n}}, Now: now, Days: o.days}
		if o.hosts != "" {
			r.Hosts = strings.Split(o.hosts, ",")
		}
		if err := issueTo(a, o.dir, n, r, out); err != nil {
			return err
		}
	}
	return nil
}

func issueTo(a *certs.Authority, dir, name string, r certs.Request, out io.Writer) error {
	p, err := a.Issue(r)
	if err != nil {
		return err
	}
	if err := certs.WritePair(dir, name, p); err != nil {
		return err
	}
	c, err := leaf(filepath.Join(dir, name+".crt"))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "made %s and .key for %s, until %s\n", filepath.Join(dir, name+".crt"), certs.Describe(c), c.NotAfter.Format("2006-01-02"))
	return nil
}

func certsRenew(o *certsOptions, now time.Time, out io.Writer) error {
	a, err := certs.LoadAuthority(o.dir)
	if err != nil {
		return err
	}
	files := certFiles(o.dir)
	if len(o.names) > 0 {
		files = nil
		for _, n := range o.names {
			files = append(files, filepath.Join(o.dir, n+".crt"))
		}
	}
	if len(files) == 0 {
		return fmt.Errorf("%w: no certificate in %s", errState, o.dir)
	}
	for _, f := range files {
		c, err := leaf(f)
		if err != nil {
			return err
		}
		if err := issueTo(a, o.dir, strings.TrimSuffix(filepath.Base(f), ".crt"), certs.Again(c, now, o.days), out); err != nil {
			return err
		}
	}
	return nil
}

func certsKey(o *certsOptions, now time.Time, out io.Writer) error {
	path := filepath.Join(o.dir, certs.KeyFile)
	if !oneOf(o.add, o.use, o.remove, o.force) {
		return usageError{errors.New("-add, -use, -drop and -force exclude each other")}
	}
	var keys certs.GroupKeys
	say := "made %[1]s with key %[2]s; copy it to every host, mode 0600, and nowhere else\n"
	if o.add || o.use || o.remove {
		var err error
		if keys, err = certs.LoadGroupKeys(path); err != nil {
			return err
		}
	}
	switch {
	case o.add:
		keys = append(keys, certs.NewGroupKey(now))
		say = "added key %[3]s to %[1]s (in use: %[2]s). Copy it to every host, then `dw certs key -use`\n"
	case o.use:
		if len(keys) < 2 {
			return fmt.Errorf("%w: %s has one key only; -add makes the next one", errState, path)
		}
		last := keys[len(keys)-1]
		keys = append(certs.GroupKeys{last}, keys[:len(keys)-1]...)
		say = "%[1]s uses key %[2]s now. Copy it to every host, then `dw certs key -drop`\n"
	case o.remove:
		keys = keys[:1]
		say = "%[1]s has key %[2]s only. Copy it to every host\n"
	default:
		if err := os.MkdirAll(o.dir, 0o755); err != nil {
			return err
		}
		there, err := exists(path)
		if err != nil {
			return err
		}
		if there != "" && !o.force {
			return fmt.Errorf("%w: %s is there already. -add makes the next key while everything runs; -force replaces it", errState, path)
		}
		keys = certs.GroupKeys{certs.NewGroupKey(now)}
	}
	if _, err := certs.ParseGroupKeys(path, keys.Format()); err != nil {
		return fmt.Errorf("%w: %w", errState, err)
	}
	if err := certs.WriteFile(path, keys.Format(), 0o600); err != nil {
		return err
	}
	fmt.Fprintf(out, say, path, keys[0].ID, keys[len(keys)-1].ID)
	return nil
}

// certFiles are the certificates of a directory but for the authority's.
func certFiles(dir string) []string {
	all, _ := filepath.Glob(filepath.Join(dir, "*.crt"))
	all = slices.DeleteFunc(all, func(p string) bool { return filepath.Base(p) == certs.CACertFile })
	sort.Strings(all)
	return all
}

func leaf(path string) (*x509.Certificate, error) {
	b, err := certs.Read(path)
	if err != nil {
		return nil, err
	}
	l, err := certs.ParseCerts(path, b)
	if err != nil {
		return nil, err
	}
	return l[0], nil
}

// certsShow lists what a directory holds; it fails when something in it is of
// no use.
func certsShow(o *certsOptions, now time.Time, out io.Writer) error {
	t := table.NewWriter()
	t.SetOutputMirror(out)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"file", "for", "hosts", "signed by", "from", "until", "days left", "remark"})
	bad := 0
	row := func(file string, c *x509.Certificate, remark error) {
		r, hosts := "", append([]string(nil), c.DNSNames...)
		for _, ip := range c.IPAddresses {
			hosts = append(hosts, ip.String())
		}
		left := int(c.NotAfter.Sub(now).Hours() / 24)
		switch {
		case remark != nil:
			r, bad = remark.Error(), bad+1
		case left < 30:
			r = "renew it soon"
		}
		t.AppendRow(table.Row{file, certs.Describe(c), strings.Join(hosts, " "), c.Issuer.CommonName, c.NotBefore.Format("2006-01-02"), c.NotAfter.Format("2006-01-02"), left, r})
	}
	found := 0
	ca := filepath.Join(o.dir, certs.CACertFile)
	cas, err := certs.LoadCAs(ca)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, c := range cas {
		found++
		row(certs.CACertFile, c, certs.Dates(c, now))
	}
	for _, f := range certFiles(o.dir) {
		found++
		c, err := leaf(f)
		if err != nil {
			return err
		}
		err = certs.Verify(cas, []*x509.Certificate{c}, now)
		if err == nil {
			_, err = certs.LoadPair(f, strings.TrimSuffix(f, ".crt")+".key")
		}
		row(filepath.Base(f), c, err)
	}
	path := filepath.Join(o.dir, certs.KeyFile)
	keys, err := certs.LoadGroupKeys(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for n, k := range keys {
		found++
		r := "in use"
		if n > 0 {
			r = "accepted"
		}
		t.AppendRow(table.Row{certs.KeyFile, "key " + k.ID, "", "", k.Created.Format("2006-01-02"), "", "", r})
	}
	if found == 0 {
		return fmt.Errorf("%w: %s holds no certificate and no key", errState, o.dir)
	}
	t.Render()
	if bad > 0 {
		return fmt.Errorf("%d of them cannot be used", bad)
	}
	return nil
}
