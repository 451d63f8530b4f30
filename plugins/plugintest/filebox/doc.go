// Package filebox is a complete driver whose balancer is a JSON file. It balances
// nothing: tests of the programs around drivers use it, and who writes a driver
// can read it as an example, for it does all that docs/plugins.md asks.
package filebox
