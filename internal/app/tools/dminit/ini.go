package dminit

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"

	"datawatch/internal/config"
	"datawatch/internal/vfs"
)

// writeConfig writes dm.ini last, and examples of the other files first.
func writeConfig(fsys vfs.FS, s spec) error {
	files := []struct {
		name string
		text []byte
	}{
		{"dmmal_example.ini", malExample(s)},
		{"dmarch_example.ini", archExample(s)},
		{"dmwatcher_example.ini", watcherExample(s)},
		{"dm.ini", dmIni(s)},
	}
	for _, f := range files {
		if err := config.SaveFile(fsys, filepath.Join(s.Dir, f.name), f.text); err != nil {
			return err
		}
	}
	return nil
}

// dmIni sets what the arguments say and shows every other parameter with its
// default, commented out.
func dmIni(s spec) []byte {
	set := map[string][]string{
		"INSTANCE_NAME": {s.InstName},
		"PORT_NUM":      {fmt.Sprint(s.Port)},
		"LISTEN_IP":     {"127.0.0.1"},
		"BUFFER":        {fmt.Sprint(s.Buffer)},
		"MAL_INI":       {"0"},
		"ARCH_INI":      {"0"},
	}
	for _, l := range s.logs {
		set["LOG_PATH"] = append(set["LOG_PATH"], filepath.Base(l))
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# dm.ini of instance %s. Relative paths start here. All parameters: docs/parameters.md\n", s.InstName)
	for _, p := range config.Params("dm.ini") {
		if vs := set[p.Name]; vs != nil {
			fmt.Fprintf(&b, "\n# %s\n", p.Doc)
			for _, v := range vs {
				fmt.Fprintf(&b, "%s = %s\n", p.Name, v)
			}
		}
	}
	b.WriteString("\n# Defaults; remove the # to change one.\n")
	for _, p := range config.Params("dm.ini") {
		if set[p.Name] == nil && p.Effective && p.Default != "" {
			fmt.Fprintf(&b, "#%s = %s%s\n", p.Name, p.Default, unit(p))
		}
	}
	return b.Bytes()
}

func unit(p *config.Param) string {
	if p.Unit == "" {
		return ""
	}
	return "  # " + p.Unit
}

const exampleHead = `# Example of %[1]s. Copy it to %[1]s, adapt it, then set
# %[2]s
`

func malExample(s spec) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, exampleHead, "dmmal.ini", "MAL_INI = 1 in dm.ini. The file is the same on every host of the system.")
	fmt.Fprintf(&b, `MAL_CHECK_INTERVAL = 5
MAL_CONN_FAIL_INTERVAL = 5
#MAL_SSL_MODE = AUTO          # hosts beyond loopback need TLS: "dw certs", docs/operations.md
#MAL_SSL_PATH = ssl           # certificates or group key

[MAL_INST1]
MAL_INST_NAME = %s
MAL_HOST = 127.0.0.1          # internal address
MAL_PORT = %d                 # for the other instances
MAL_INST_HOST = 127.0.0.1     # address for clients
MAL_INST_PORT = %d            # PORT_NUM
MAL_DW_PORT = %d              # of the watcher
MAL_INST_DW_PORT = %d         # for the watcher

#[MAL_INST2]                  # one section per instance
#MAL_INST_NAME = GRP1_RT_02
`, s.InstName, s.Port+100, s.Port, s.Port+300, s.Port+200)
	return []byte(b.String())
}

func archExample(s spec) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, exampleHead, "dmarch.ini", "ARCH_INI = 1 in dm.ini.")
	fmt.Fprintf(&b, `[ARCHIVE_LOCAL1]
ARCH_TYPE = LOCAL
ARCH_DEST = %s
ARCH_FILE_SIZE = %d           # MB
ARCH_SPACE_LIMIT = 0          # MB, 0 no limit

#[ARCHIVE_REALTIME1]          # one section per standby
#ARCH_TYPE = REALTIME
#ARCH_DEST = GRP1_RT_02       # its instance name
`, filepath.Join(s.Dir, "arch"), s.ArchFileSize)
	return []byte(b.String())
}

func watcherExample(s spec) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, exampleHead, "dmwatcher.ini", "and start dmwatcher with its path.")
	fmt.Fprintf(&b, `[GRP1]
DW_TYPE = GLOBAL
DW_MODE = AUTO
DW_ERROR_TIME = 10
INST_ERROR_TIME = 10
INST_RECOVER_TIME = 60
INST_OGUID = 453331           # the same in the whole group
INST_INI = %s
INST_AUTO_RESTART = 1
INST_STARTUP_CMD = /opt/datawatch/bin/dmserver
`, filepath.Join(s.Dir, "dm.ini"))
	return []byte(b.String())
}
