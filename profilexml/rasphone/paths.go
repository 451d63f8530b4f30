package rasphone

import "strings"

// A Place is where Windows keeps phone books.
type Place struct {
	Path string // Path is the file
	// AllUsers is for the file that all users share, device tunnels too.
	AllUsers bool
	// Hidden is for what a user has changed of a connection of all users. It
	// can be out of date or damaged, and may then be deleted.
	Hidden bool
}

// Places returns where Windows keeps phone books: that of all users first, then
// that of the user, and what the user has changed of the former. getenv is
// [os.Getenv] for the user at hand; a place whose folder it doesn't know is left
// out.
func Places(getenv func(string) string) []Place {
	const below = `\Microsoft\Network\Connections\Pbk\`
	var list []Place
	if d := strings.TrimRight(getenv("ProgramData"), `\`); d != "" {
		list = append(list, Place{Path: d + below + "rasphone.pbk", AllUsers: true})
	}
	if d := strings.TrimRight(getenv("APPDATA"), `\`); d != "" {
		list = append(list,
			Place{Path: d + below + "rasphone.pbk"},
			Place{Path: d + below + `_hiddenPbk\rasphone.pbk`, Hidden: true})
	}
	return list
}
