// Package rasphone edits rasphone.pbk, the phone book in which Windows keeps its
// VPN connections, and changes no byte that it wasn't asked to change.
//
// Some settings of a connection can't be given in a profile, or not before a
// recent Windows: above all VpnStrategy, which says whether IKEv2 or SSTP is
// tried first. Scripts therefore edit the phone book, and damage it: they write
// it in another encoding, change every connection of the file, or lose what
// Windows writes at the same time.
//
// # Reading
//
// [Parse] reads a phone book without loss. A [Phonebook] knows where each line
// is; [Phonebook.Entry] finds a connection by its exact name, and [Entry.Get] a
// key. Keys are told apart by case, since Device and DEVICE are two; keys that
// are repeated are the lines of a list, for which there are [Entry.Policies],
// [Entry.Routes], [Entry.NameRules], [Entry.TrustedNetworks] and others.
//
// # Editing
//
// An [Edit] says which entries are to have which settings. [Phonebook.Apply]
// makes a new Phonebook that differs in the values asked for and in nothing else.
// It refuses what it can't do for certain: an entry that isn't there or is there
// twice, a key that is repeated, a value with a control character.
//
// [File] applies an edit to a file: it keeps a backup, replaces the file in one
// step, keeps its permissions, waits while Windows has it locked, and starts again
// if somebody else changed it meanwhile.
//
// # Keeping it so
//
// Windows rewrites VpnStrategy when a connection succeeds with another protocol,
// and makes the whole entry anew when a profile is delivered. The package watch
// below this one applies an edit again when that happens.
//
// The package needs nothing beyond the standard library, and works everywhere:
// a phone book can be examined and prepared where there is no Windows.
package rasphone
