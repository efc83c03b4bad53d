// Package syntax parses the texts that people write into fields: durations, quantities, patterns, variables, schedules,
// capabilities and registries. It knows no object, so that all who read or check a field can use it.
package syntax
