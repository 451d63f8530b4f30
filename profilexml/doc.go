// Package profilexml reads, builds, checks, fixes, formats and compares
// ProfileXML: the profile that makes a Windows client an Always On VPN client.
//
// Windows takes a wrong profile without a word and applies the half that it
// understands, or refuses it with "a general error occurred". This package says
// what is wrong, where, why, and what to do, before a client sees the profile.
//
// # Content
//
// One table, [Content], knows every element: what it may hold, how often it may
// be there, since which release of Windows, where it stands in the published
// schema and where when Windows reads the profile back, and what goes wrong with
// it. Everything else here follows that table, the documentation too.
//
// # Reading
//
// [Parse] reads a file without loss, in UTF-8 or UTF-16. A [Document] comes out
// again byte for byte, and knows the line and column of everything in it.
// Elements that nobody knows are kept. [Document.Profile] turns it into a
// [Profile], and [Profile.Document] makes a document of one.
//
// # Checking
//
// A [Checker] looks for what the rules name, for a release of Windows and for a
// way of delivery: [Rules] has them all. [Checker.Fix] sets right what a program
// can set right safely, and changes nothing else.
//
// # Formatting and comparing
//
// [Format] lays a document out for people or for a channel. [Diff] says in words
// how two profiles differ, or a profile and what Windows reads back.
//
// The package needs nothing beyond the standard library.
package profilexml
