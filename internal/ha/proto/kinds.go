package proto

// Kinds of monitor commands that hold watchers between begin and end. Each
// puts the watcher into the state StateOf names.
const (
	KindSwitchover = "switchover"
	KindTakeover   = "takeover"
	KindOpenForce  = "open force"
	KindChangeArch = "change arch"
	KindClearSend  = "clear send info"
	KindClearApply = "clear rapply stat"
)

// StateOf returns the watcher state a held command of that kind shows, or ""
// for an unknown kind.
func StateOf(kind string) string {
	switch kind {
	case KindSwitchover:
		return DWSwitchover
	case KindTakeover:
		return DWTakeover
	case KindOpenForce:
		return DWOpenForce
	case KindChangeArch:
		return DWChangeArch
	case KindClearSend:
		return DWClearSend
	case KindClearApply:
		return DWClearRapply
	}
	return ""
}
