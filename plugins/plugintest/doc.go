// Package plugintest is the conformance suite of drivers: what holds for every
// [plugins.Driver], whatever it drives. A driver's own test makes a [Suite] and
// calls Run:
//
//	func TestConformance(t *testing.T) {
//		plugintest.Suite{Open: func(t *testing.T) plugintest.Target {
//			box := fake.New(t)
//			return plugintest.Target{
//				Driver: func(t *testing.T) plugins.Driver { … }, // configured for box
//				Writes: box.Writes,
//			}
//		}}.Run(t)
//	}
//
// It holds the driver to what [plugins.Driver] says: a plan is followed by no
// further plan, a second Apply writes nothing, each thing that is asked for is
// done or diagnosed, what isn't the driver's stays as it is, an Apply that broke
// off is made good by the next one, and secrets are nowhere to be seen. What a
// Target can't tell isn't tested, and the test says so by being skipped.
package plugintest
