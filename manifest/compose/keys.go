package compose

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Outcome says what happens to a key of a Compose file.
type Outcome string

const (
	// Mapped keys have an equivalent. The conversion may still add a note or a loss for some of their values.
	Mapped Outcome = "mapped"
	// Ignored keys change nothing about how the project runs.
	Ignored Outcome = "no effect"
	// Lossy keys have no equivalent. Without them, the project runs differently.
	Lossy Outcome = "loss"
	// Refused keys have no equivalent, and the project does not work without them.
	Refused Outcome = "refused"
)

// Row says what happens to a key and to everything below it. A row with a longer key has precedence.
type Row struct {
	// Key is a path, where `*` stands for a name.
	Key     string
	Outcome Outcome
	// Text is the field of a project for mapped keys, and what to do instead for all others.
	Text string
}

// Keys returns the table of all keys of the Compose specification. docs/compose.md shows it.
func Keys() []Row {
	return slices.Concat(topRows(), containerRows(), limitRows(), isolationRows(), deployRows(), objectRows())
}

func topRows() []Row {
	return []Row{
		{"name", Mapped, "metadata.name"},
		{"version", Ignored, "Compose itself ignores it"},
		{"include", Mapped, "the included files are read"},
		{"services", Mapped, "spec.services"},
		{"volumes", Mapped, "spec.volumes with the type Managed"},
		{"networks", Ignored, "all services of a project share one network"},
		{"configs", Mapped, "services[].files"},
		{"secrets", Mapped, "services[].files from a Secret"},
		{"jobs", Refused, "Cara runs services; a service with restartPolicy OnFailure runs once"},
		{"models", Refused, "run the model server as a service"},
	}
}

func containerRows() []Row {
	return []Row{
		{"services.*.image", Mapped, "services[].image"},
		{"services.*.build", Mapped, "nothing: Cara runs images. Build and push the image in a pipeline and name it in image"},
		{"services.*.command", Mapped, "services[].args"},
		{"services.*.entrypoint", Mapped, "services[].command"},
		{"services.*.environment", Mapped, "services[].env; passwords become a Secret"},
		{"services.*.env_file", Mapped, "services[].env; passwords become a Secret"},
		{"services.*.working_dir", Mapped, "services[].workingDir"},
		{"services.*.user", Mapped, "services[].user"},
		{"services.*.healthcheck", Mapped, "services[].healthcheck.exec"},
		{"services.*.healthcheck.start_interval", Lossy, "checks use the interval from the start"},
		{"services.*.depends_on", Mapped, "services[].dependsOn"},
		{"services.*.restart", Mapped, "services[].restartPolicy; a service without it is restarted"},
		{"services.*.volumes", Mapped, "services[].volumeMounts, services[].files or services[].tmpfs"},
		{"services.*.tmpfs", Mapped, "services[].tmpfs"},
		{"services.*.configs", Mapped, "services[].files"},
		{"services.*.secrets", Mapped, "services[].files from a Secret"},
		{"services.*.ports", Mapped, "ingress for HTTP ports, spec.ports for others; a node has to offer them"},
		{"services.*.expose", Ignored, "the services of a project reach each other at every port"},
		{"services.*.labels", Mapped, "services[].labels; a Host rule of Traefik becomes ingress"},
		{"services.*.label_file", Mapped, "services[].labels"},
		{"services.*.annotations", Lossy, "use labels"},
		{"services.*.stop_grace_period", Mapped, "services[].stopGracePeriod"},
		{"services.*.stop_signal", Mapped, "services[].stopSignal"},
		{"services.*.init", Mapped, "services[].init"},
		{"services.*.pull_policy", Mapped, "services[].pullPolicy"},
		{"services.*.pull_refresh_after", Lossy, "name a new tag or digest in git to get another image"},
		{"services.*.platform", Lossy, "a project runs on nodes whose platform the image has; choose a node with nodeSelector"},
		{"services.*.profiles", Mapped, "services of enabled profiles are converted (--profile)"},
		{"services.*.extends", Mapped, "the extended service is read"},
		{"services.*.container_name", Ignored, "other services reach this one by its service name"},
		{"services.*.hostname", Lossy, "the container's host name is chosen by the engine; other services use the service name"},
		{"services.*.domainname", Lossy, "other services use the service name"},
		{"services.*.attach", Ignored, "see caractrl logs"},
		{"services.*.develop", Ignored, "it is for docker compose watch"},
		{"services.*.logging", Ignored, "Cara keeps 3 files of 10 MB for each container; see caractrl logs"},
		{"services.*.tty", Ignored, "caractrl exec -it opens a terminal"},
		{"services.*.stdin_open", Ignored, "caractrl exec -it opens a terminal"},
		{"services.*.post_start", Refused, "put the command into the image's entrypoint"},
		{"services.*.pre_start", Refused, "use a service with restartPolicy OnFailure, and dependsOn with the condition Completed"},
		{"services.*.pre_stop", Refused, "put the command into the image's entrypoint, or handle stopSignal"},
		{"services.*.provider", Refused, "a provider is not a container"},
		{"services.*.models", Refused, "run the model server as a service"},
	}
}

func limitRows() []Row {
	const weights = "Cara has no relative shares; set resources.limits"
	return []Row{
		{"services.*.cpus", Mapped, "services[].resources.limits.cpu"},
		{"services.*.mem_limit", Mapped, "services[].resources.limits.memory"},
		{"services.*.mem_reservation", Mapped, "services[].resources.requests.memory"},
		{"services.*.pids_limit", Mapped, "services[].resources.limits.pids"},
		{"services.*.shm_size", Mapped, "services[].shmSize"},
		{"services.*.ulimits", Mapped, "services[].ulimits"},
		{"services.*.memswap_limit", Lossy, "Cara gives containers no swap limit of their own"},
		{"services.*.mem_swappiness", Lossy, "set it on the node"},
		{"services.*.cpu_count", Lossy, weights},
		{"services.*.cpu_percent", Lossy, weights},
		{"services.*.cpu_period", Lossy, weights},
		{"services.*.cpu_quota", Lossy, weights},
		{"services.*.cpu_rt_period", Lossy, weights},
		{"services.*.cpu_rt_runtime", Lossy, weights},
		{"services.*.cpu_shares", Lossy, weights},
		{"services.*.cpuset", Lossy, weights},
		{"services.*.blkio_config", Lossy, weights},
		{"services.*.oom_kill_disable", Lossy, "set resources.limits.memory high enough"},
		{"services.*.oom_score_adj", Lossy, "set resources.requests.memory"},
		{"services.*.scale", Mapped, "one container; more are a loss"},
		{"services.*.storage_opt", Lossy, "the node's engine decides"},
	}
}

func isolationRows() []Row {
	const host = "containers have no access to the machine"
	const dns = "the project's network resolves service names, and all other names as the node does"
	return []Row{
		{"services.*.cap_add", Mapped, "services[].capAdd; some need cara-agent --allow-cap"},
		{"services.*.cap_drop", Mapped, "services[].capDrop"},
		{"services.*.read_only", Mapped, "services[].readOnly"},
		{"services.*.security_opt", Mapped, "services[].noNewPrivileges for no-new-privileges:true; other options are a loss"},
		{"services.*.networks", Mapped, "all services of a project share one network"},
		{"services.*.network_mode", Mapped, "bridge and default have no effect; others are refused: " + host},
		{"services.*.links", Mapped, "service names; an alias is a loss"},
		{"services.*.external_links", Refused, "other projects are reached through the ingress"},
		{"services.*.extra_hosts", Lossy, "use a DNS name that the node resolves; containers do not reach the machine itself"},
		{"services.*.dns", Lossy, dns},
		{"services.*.dns_opt", Lossy, dns},
		{"services.*.dns_search", Lossy, dns},
		{"services.*.mac_address", Lossy, "the engine chooses the address"},
		{"services.*.privileged", Refused, host + "; add single capabilities with cap_add"},
		{"services.*.devices", Refused, host},
		{"services.*.device_cgroup_rules", Refused, host},
		{"services.*.gpus", Refused, host},
		{"services.*.runtime", Refused, "the node's engine decides"},
		{"services.*.isolation", Lossy, "it is for Windows"},
		{"services.*.credential_spec", Refused, "it is for Windows"},
		{"services.*.pid", Refused, host},
		{"services.*.ipc", Refused, "set shm_size for a larger /dev/shm"},
		{"services.*.uts", Refused, host},
		{"services.*.userns_mode", Refused, host},
		{"services.*.cgroup", Refused, host},
		{"services.*.cgroup_parent", Refused, host},
		{"services.*.sysctls", Refused, "Cara sets no kernel parameters of a container; set those of the machine on the node"},
		{"services.*.group_add", Lossy, "set user to UID:GID"},
		{"services.*.umask", Lossy, "set it in the image's entrypoint"},
		{"services.*.use_api_socket", Refused, "offer /var/run/docker.sock as a host volume: cara-agent --host-volume"},
		{"services.*.volumes_from", Refused, "mount the same volumes in both services"},
	}
}

func deployRows() []Row {
	return []Row{
		{"services.*.deploy", Mapped, "see its keys"},
		{"services.*.deploy.mode", Mapped, "one container; global is a loss"},
		{"services.*.deploy.replicas", Mapped, "one container; more are a loss"},
		{"services.*.deploy.labels", Ignored, "they label a Swarm service and not its containers"},
		{"services.*.deploy.endpoint_mode", Ignored, "it is for Swarm"},
		{"services.*.deploy.placement", Lossy, "set spec.nodeSelector"},
		{"services.*.deploy.resources.limits", Mapped, "services[].resources.limits"},
		{"services.*.deploy.resources.reservations", Mapped, "services[].resources.requests"},
		{"services.*.deploy.resources.reservations.devices", Refused, "containers have no access to the machine"},
		{"services.*.deploy.resources.reservations.generic_resources", Lossy, "set spec.nodeSelector"},
		{"services.*.deploy.restart_policy", Mapped, "services[].restartPolicy"},
		{"services.*.deploy.restart_policy.delay", Ignored, "Cara waits longer after each failure"},
		{"services.*.deploy.restart_policy.max_attempts", Ignored, "Cara waits longer after each failure"},
		{"services.*.deploy.restart_policy.window", Ignored, "Cara waits longer after each failure"},
		{"services.*.deploy.rollback_config", Ignored, "a failed update leaves or restores the old container"},
		{"services.*.deploy.update_config", Ignored, "a service has one container"},
		{"services.*.deploy.update_config.order", Mapped, "services[].update.order"},
	}
}

func objectRows() []Row {
	return []Row{
		{"volumes.*.name", Ignored, "the name of the volume in the engine contains the project's name"},
		{"volumes.*.labels", Ignored, "Cara labels its volumes itself"},
		{"volumes.*.external", Lossy, "the project gets an empty volume: copy the data into it"},
		{"volumes.*.driver", Mapped, "local has no effect; others are refused"},
		{"volumes.*.driver_opts", Refused, "mount it on the node and offer it as a host volume: cara-agent --host-volume"},
		{"networks.*.external", Lossy, "other projects are reached through the ingress"},
		{"networks.*.internal", Lossy, "the project's network reaches the outside"},
		{"configs.*.file", Mapped, "services[].files[].content"},
		{"configs.*.content", Mapped, "services[].files[].content"},
		{"configs.*.environment", Mapped, "services[].files[].content"},
		{"configs.*.external", Refused, "set file or content"},
		{"configs.*.template_driver", Refused, "write the finished content"},
		{"configs.*.labels", Ignored, "files have no labels"},
		{"secrets.*.file", Mapped, "a key of a Secret"},
		{"secrets.*.environment", Mapped, "a key of a Secret"},
		{"secrets.*.external", Refused, "create the Secret in Cara and name it in services[].files[].secretKeyRef"},
		{"secrets.*.driver", Refused, "set file or environment"},
		{"secrets.*.driver_opts", Refused, "set file or environment"},
		{"secrets.*.template_driver", Refused, "write the finished content"},
		{"secrets.*.labels", Ignored, "Secrets have no labels"},
	}
}

// rowOf returns the row with the longest key that a path is or is below of.
func rowOf(rows map[string]Row, path []string) (Row, bool) {
	pattern := slices.Clone(path)
	if len(pattern) > 1 && slices.Contains([]string{"services", "volumes", "networks", "configs", "secrets", "jobs", "models"}, pattern[0]) {
		pattern[1] = "*"
	}
	for n := len(pattern); n > 0; n-- {
		if row, ok := rows[strings.Join(pattern[:n], ".")]; ok {
			return row, true
		}
	}
	return Row{}, false
}

// keys adds a finding for each key that has no equivalent.
func (c *converter) keys() {
	rows := map[string]Row{}
	for _, row := range Keys() {
		rows[row.Key] = row
	}
	told := map[string]bool{}
	eachKey(c.model, nil, func(path []string) {
		if c.unused(path) || slices.ContainsFunc(path, func(key string) bool { return strings.HasPrefix(key, "x-") }) {
			return
		}
		row, ok := rowOf(rows, path)
		at := strings.Join(path[:min(len(path), strings.Count(row.Key, ".")+1)], ".")
		switch {
		case !ok:
			c.say(Refusal, strings.Join(path, "."), "Cara does not know this key: remove it")
		case told[at]:
			return
		case row.Outcome == Lossy:
			c.say(Loss, at, "has no equivalent: "+row.Text)
		case row.Outcome == Refused:
			c.say(Refusal, at, "has no equivalent: "+row.Text)
		}
		told[at] = true
	})
}

// unused reports whether a path belongs to a service that no enabled profile has.
func (c *converter) unused(path []string) bool {
	if len(path) < 2 || path[0] != "services" {
		return false
	}
	_, used := c.project.Services[path[1]]
	return !used
}

// eachKey calls visit for each key with a value that is not empty or false, sorted by name, parents first.
func eachKey(v any, path []string, visit func(path []string)) {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if at := append(slices.Clone(path), name); !empty(v[name]) {
				visit(at)
				eachKey(v[name], at, visit)
			}
		}
	case []any:
		for i, item := range v {
			eachKey(item, append(slices.Clone(path), strconv.Itoa(i)), visit)
		}
	}
}

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return v == ""
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return false
}
