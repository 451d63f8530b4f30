// Package builtin is the [plugins.Driver] that serves a site in this process.
//
//	site ──▶ pool  = lb.Pool + lb.Monitor with a Prober for each check
//	         group = lb.Balancer + lb.Table over a pool's lb.Pool
//	         listener = udp.Engine or tcp.Engine over a group's Balancer
//
// A program configures it, applies a Deployment, and runs it:
//
//	d := &builtin.Driver{StateDir: "/var/lib/aovlb/state", Logger: logger}
//	plan, err := d.Plan(ctx, deployment)
//	…
//	err = d.Apply(ctx, plan, nil) // returns with all listeners open
//	…
//	err = d.Run(ctx)              // until ctx is done
//
// # What a change costs
//
// Apply opens every new socket, reads every secret and makes every check before
// it touches what runs: if any of that fails, nothing has changed. Then it
// touches only what differs.
//
//   - Pools, backends, weights, pickers and checks change in place. No client
//     notices.
//   - A listener is replaced when something that its engine is made of changes:
//     its own fields, or client_address, affinity, idle, half_open or limits of
//     its group. Its socket stays open, its UDP flows go on from the same ports,
//     its table goes to its successor; its TCP streams stay with the old engine
//     until they end.
//   - A listener that is removed takes no new clients, and those it has may stay
//     for [Driver.Linger].
//
// # State
//
// With [Driver.StateDir], tables, flows and drains are saved there: at the end,
// after each Apply, and now and then. A process that starts again goes on with
// them, so that a restart loses no client: names of an IKE SA find the same
// gateway, and the gateway sees the same address and port. A file that is
// damaged is set aside, with a warning, and does no other harm.
package builtin
