package compose

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// service is the conversion of one service.
type service struct {
	*converter
	in  types.ServiceConfig
	out *carav1.Service
	key string // path of the service in the files
}

func (s *service) say(severity Severity, key, format string, args ...any) {
	at := s.key
	if key != "" {
		at += "." + key
	}
	s.converter.say(severity, at, fmt.Sprintf(format, args...))
}

// process sets what the container runs.
func (s *service) process() {
	in, out := s.in, s.out
	out.Command, out.Args = in.Entrypoint, in.Command
	out.WorkingDir, out.User, out.StopSignal = in.WorkingDir, in.User, in.StopSignal
	out.Init, out.ReadOnly = in.Init != nil && *in.Init, in.ReadOnly
	if in.StopGracePeriod != nil {
		out.StopGracePeriod = time.Duration(*in.StopGracePeriod).String()
	}
	switch {
	case in.Build != nil && in.Image == "":
		s.say(Refusal, "build", "Cara runs images and builds none: build and push the image in a pipeline, and name it in image")
	case in.Build != nil:
		s.say(Note, "build", "Cara builds no images: a pipeline has to push %s", in.Image)
	case in.Image == "":
		s.say(Refusal, "", "has no image")
	}
	s.pull()
	s.labels()
}

func (s *service) pull() {
	switch policy := s.in.PullPolicy; policy {
	case "", types.PullPolicyMissing, types.PullPolicyIfNotPresent:
	case types.PullPolicyAlways:
		s.out.PullPolicy = api.PullAlways
	case types.PullPolicyNever:
		s.out.PullPolicy = api.PullNever
	case types.PullPolicyBuild:
		s.say(Loss, "pull_policy", "Cara builds no images; the image is pulled if the node does not have it")
	default:
		s.say(Loss, "pull_policy", "%q is not known: the image is pulled if the node does not have it", policy)
	}
}

// labels keeps labels, save those of Traefik, which c.ingress reads, and of Compose itself.
func (s *service) labels() {
	for _, name := range slices.Sorted(maps.Keys(s.in.Labels)) {
		switch {
		case strings.HasPrefix(name, "traefik."), strings.HasPrefix(name, "com.docker.compose."):
		case strings.HasPrefix(name, "cara."):
			s.say(Loss, "labels."+name, "the prefix cara. is reserved")
		default:
			if s.out.Labels == nil {
				s.out.Labels = map[string]string{}
			}
			s.out.Labels[name] = s.in.Labels[name]
		}
	}
}

func (s *service) dependencies() {
	conditions := map[string]string{
		types.ServiceConditionStarted: "", types.ServiceConditionHealthy: api.DependsHealthy, types.ServiceConditionCompletedSuccessfully: api.DependsCompleted,
	}
	for _, name := range slices.Sorted(maps.Keys(s.in.DependsOn)) {
		d := s.in.DependsOn[name]
		if _, enabled := s.project.Services[name]; !enabled {
			s.say(Loss, "depends_on", "service %s is not in an enabled profile", name)
			continue
		}
		s.out.DependsOn = append(s.out.DependsOn, &carav1.Dependency{Service: s.names[name], Condition: conditions[d.Condition]})
		if d.Restart && s.dependsOn(name) {
			s.say(Loss, "depends_on."+name+".restart", "Cara does not restart a service when another one restarts")
		}
	}
	for i, link := range s.in.Links {
		if to, alias, ok := strings.Cut(link, ":"); ok && alias != to {
			s.say(Loss, "links."+itoa(i), "service %s is reached by its name %s only", to, s.names[to])
		}
	}
}

// dependsOn reports whether depends_on names a service. Compose adds the services of links and network_mode to it.
func (s *service) dependsOn(name string) bool {
	services, _ := s.model["services"].(map[string]any)
	written, _ := services[s.in.Name].(map[string]any)
	on, _ := written["depends_on"].(map[string]any)
	_, ok := on[name]
	return ok
}

func (s *service) healthcheck() {
	in := s.in.HealthCheck
	if in == nil {
		return
	}
	if in.Disable || slices.Equal(in.Test, []string{"NONE"}) {
		s.out.Healthcheck = &carav1.Healthcheck{Disable: true}
		return
	}
	if len(in.Test) == 0 && in.Interval == nil && in.Timeout == nil && in.StartPeriod == nil && in.StartInterval == nil && in.Retries == nil {
		return // disable: false changes nothing
	}
	out := &carav1.Healthcheck{Interval: duration(in.Interval), Timeout: duration(in.Timeout), StartPeriod: duration(in.StartPeriod)}
	if in.Retries != nil {
		out.Retries = int32(min(*in.Retries, 1000)) //nolint:gosec // limited
	}
	switch {
	case len(in.Test) == 2 && in.Test[0] == "CMD-SHELL":
		out.Exec = &carav1.ExecCheck{Command: []string{"/bin/sh", "-c", in.Test[1]}}
	case len(in.Test) > 1 && in.Test[0] == "CMD":
		out.Exec = &carav1.ExecCheck{Command: in.Test[1:]}
	default:
		s.say(Loss, "healthcheck", "without a test, it changes the HEALTHCHECK of the image; in Cara, give the test as well")
		return
	}
	s.out.Healthcheck = out
}

func duration(d *types.Duration) string {
	if d == nil {
		return ""
	}
	return time.Duration(*d).String()
}

// restart converts the restart policy. A service that others wait for until it has completed runs once.
func (s *service) restart() {
	policy := s.in.Restart
	if d := s.in.Deploy; d != nil && d.RestartPolicy != nil {
		policy = map[string]string{"none": "no", "on-failure": "on-failure", "any": "always"}[d.RestartPolicy.Condition]
	}
	name, _, limited := strings.Cut(policy, ":")
	switch name {
	case "no":
		s.out.RestartPolicy = api.RestartNever
	case "on-failure":
		s.out.RestartPolicy = api.RestartOnFailure
		if limited {
			s.say(Note, "restart", "Cara restarts without a limit, and waits longer after each failure")
		}
	case "":
		if isJob(s.project, s.in.Name) {
			s.out.RestartPolicy = api.RestartOnFailure
			return
		}
		s.restarted = append(s.restarted, s.in.Name)
	case "always", "unless-stopped":
	default:
		s.say(Refusal, "restart", "%q is not known: use no, on-failure, always or unless-stopped", policy)
	}
}

// isJob reports whether a service waits for the end of the service with this name.
func isJob(project *types.Project, name string) bool {
	for _, other := range project.Services {
		if d, ok := other.DependsOn[name]; ok && d.Condition == types.ServiceConditionCompletedSuccessfully {
			return true
		}
	}
	return false
}

func (s *service) security() {
	s.out.CapAdd, s.out.CapDrop = s.in.CapAdd, s.in.CapDrop
	for i, option := range s.in.SecurityOpt {
		switch strings.ReplaceAll(option, "=", ":") {
		case "no-new-privileges:true", "no-new-privileges":
			s.out.NoNewPrivileges = true
		case "no-new-privileges:false":
		default:
			s.say(Loss, "security_opt."+itoa(i), "%s has no equivalent: containers have the engine's default profile", option)
		}
	}
}

func (s *service) network() {
	switch mode := s.in.NetworkMode; mode {
	case "", "default", "bridge":
	case "none":
		s.say(Loss, "network_mode", "every service is in the network of its project")
	case "host":
		s.say(Refusal, "network_mode", "host has no equivalent: every service is in the network of its project. Remove it, and publish the ports with ports")
	default:
		s.say(Refusal, "network_mode", "%s has no equivalent: every service is in the network of its project", mode)
	}
	for _, name := range slices.Sorted(maps.Keys(s.in.Networks)) {
		n := s.in.Networks[name]
		if n == nil {
			continue
		}
		for _, alias := range n.Aliases {
			if alias != s.out.GetName() {
				s.say(Loss, "networks."+name+".aliases", "the service is reached by its name %s and not by %s", s.out.GetName(), alias)
			}
		}
		if n.Ipv4Address != "" || n.Ipv6Address != "" {
			s.say(Loss, "networks."+name, "the engine chooses the address: use the service name %s", s.out.GetName())
		}
	}
	if name := s.in.ContainerName; name != "" && name != s.out.GetName() && s.mentioned(s.in.Name, name) {
		s.say(Loss, "container_name", "another service refers to %s: it has to use the service name %s", name, s.out.GetName())
	}
}

func (s *service) deploy() {
	d := s.in.Deploy
	if s.in.Scale != nil && *s.in.Scale > 1 {
		s.say(Loss, "scale", "a service has one container")
	}
	if d == nil {
		return
	}
	if d.Replicas != nil && *d.Replicas > 1 {
		s.say(Loss, "deploy.replicas", "a service has one container")
	}
	if d.Mode == "global" {
		s.say(Loss, "deploy.mode", "a service has one container, on one node")
	}
	if d.UpdateConfig != nil && d.UpdateConfig.Order == api.UpdateStartFirst {
		s.out.Update = &carav1.Update{Order: api.UpdateStartFirst}
	}
}
