// Package netns has the tests of engines run in network namespaces that they make with
// ip themselves, where the net of package peers would be more than they want.
package netns
