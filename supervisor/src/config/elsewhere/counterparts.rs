//! The table of other servers' settings and ours.

/// What other servers call a setting, and what does the same here.
pub(super) struct Counterpart {
    /// Their names, in lower case with underscores; a dot where theirs is in a table.
    pub(super) theirs: &'static [&'static str],
    /// Ours: a key of a pool, of a table of a pool (`http.idle_timeout`) or of another
    /// table of the file (`[supervisor].log`).
    pub(super) ours: &'static [&'static str],
    /// What there is to say beside it, or instead of it.
    pub(super) note: &'static str,
}

const fn same(theirs: &'static [&'static str], ours: &'static [&'static str]) -> Counterpart {
    but(theirs, ours, "")
}

const fn but(
    theirs: &'static [&'static str],
    ours: &'static [&'static str],
    note: &'static str,
) -> Counterpart {
    Counterpart { theirs, ours, note }
}

/// Settings of gunicorn, uvicorn, puma, uWSGI, php-fpm, NGINX, NGINX Unit, pm2 and systemd.
pub(super) const COUNTERPARTS: &[Counterpart] = &[
    // How many.
    same(
        &[
            "processes",
            "num_workers",
            "worker_processes",
            "worker_count",
            "instances",
        ],
        &["workers"],
    ),
    but(
        &[
            "min_workers",
            "max_workers",
            "pm",
            "pm.max_children",
            "pm.start_servers",
            "pm.min_spare_servers",
            "pm.max_spare_servers",
            "processes.max",
            "processes.spare",
            "cheaper",
        ],
        &["workers"],
        "a pool has as many workers as it says; `prefork scale` changes that while it runs",
    ),
    but(
        &["threads", "min_threads", "max_threads", "enable_threads"],
        &["workers"],
        "that counts processes; their threads are the program's own to choose",
    ),
    but(
        &["worker_class", "worker_type", "exec_mode"],
        &[],
        "there is no such choice here; how requests are served is the program's own",
    ),
    same(&["worker_connections"], &["http.max_connections"]),
    same(&["limit_concurrency"], &["http.max_concurrency"]),
    // How long.
    but(
        &["timeout", "worker_timeout"],
        &["heartbeat_timeout", "http.request_timeout"],
        "the first ends a worker that hangs, the second a request that takes too long",
    ),
    same(
        &["harakiri", "request_terminate_timeout", "limits.timeout"],
        &["http.request_timeout"],
    ),
    same(
        &[
            "graceful_timeout",
            "timeout_graceful_shutdown",
            "worker_shutdown_timeout",
            "force_shutdown_after",
            "worker_reload_mercy",
            "process_control_timeout",
        ],
        &["drain_timeout"],
    ),
    same(
        &[
            "keepalive",
            "keep_alive",
            "keepalive_timeout",
            "timeout_keep_alive",
            "persistent_timeout",
        ],
        &["http.idle_timeout"],
    ),
    same(
        &["worker_boot_timeout", "listen_timeout", "timeoutstartsec"],
        &["boot_timeout"],
    ),
    same(&["timeoutstopsec"], &["drain_timeout", "kill_timeout"]),
    same(
        &["client_header_timeout", "first_data_timeout"],
        &["http.header_timeout"],
    ),
    same(&["client_body_timeout"], &["http.body_timeout"]),
    same(&["send_timeout"], &["http.write_timeout"]),
    // How much.
    same(
        &["limit_max_requests", "pm.max_requests", "limits.requests"],
        &["max_requests"],
    ),
    same(&["limit_max_requests_jitter"], &["max_requests_jitter"]),
    same(
        &["reload_on_rss", "evil_reload_on_rss", "max_memory_restart"],
        &["max_rss"],
    ),
    same(&["max_worker_lifetime"], &["max_age"]),
    same(&["limit_request_line"], &["http.max_uri_size"]),
    same(&["limit_request_fields"], &["http.max_headers"]),
    same(
        &[
            "limit_request_field_size",
            "h11_max_incomplete_event_size",
            "buffer_size",
        ],
        &["http.max_header_size"],
    ),
    same(
        &["client_max_body_size", "limit_post", "post_max_size"],
        &["http.max_body_size"],
    ),
    same(
        &[
            "limit_as",
            "limitnofile",
            "rlimit_files",
            "rlimit_core",
            "worker_rlimit_nofile",
        ],
        &["rlimits"],
    ),
    // Where it listens, and what runs as whom.
    same(
        &[
            "bind",
            "host",
            "port",
            "uds",
            "socket",
            "http_socket",
            "address",
            "listeners",
            "listenstream",
        ],
        &["listen"],
    ),
    but(
        &[
            "certfile",
            "keyfile",
            "ssl_certfile",
            "ssl_keyfile",
            "ssl_cert",
            "ssl_key",
            "ssl_certificate",
            "ssl_certificate_key",
            "tls",
        ],
        &["listen"],
        "an address with TLS is { address = \"0.0.0.0:8443\", tls = { cert = \"www.pem\", key = \"www.key\" } }",
    ),
    but(
        &["backlog", "listen_backlog"],
        &["listen"],
        "an address with a backlog is { address = \"0.0.0.0:8080\", backlog = 4096 }",
    ),
    same(&["uid"], &["user"]),
    same(&["gid"], &["group"]),
    same(
        &[
            "chdir",
            "cwd",
            "directory",
            "working_dir",
            "workingdirectory",
        ],
        &["working_directory"],
    ),
    same(&["raw_env", "environment", "clear_env"], &["env"]),
    but(
        &[
            "command",
            "cmd",
            "exec",
            "execstart",
            "executable",
            "script",
            "args",
            "arguments",
            "interpreter",
            "module",
            "wsgi",
            "wsgi_app",
        ],
        &["program"],
        "it is an array of the program and its arguments, as in [\"/usr/bin/shop\", \"--quiet\"]",
    ),
    same(&["prio", "priority", "process.priority"], &["nice"]),
    same(&["worker_cpu_affinity"], &["cpu_affinity"]),
    same(&["kill_signal", "killsignal"], &["adapter.stop_signal"]),
    same(
        &["health_check", "healthcheck", "health_check_path"],
        &["check"],
    ),
    but(
        &["proc_name", "procname", "name"],
        &[],
        "a pool has its name in its header: [pool.shop]",
    ),
    // When it fails.
    but(
        &["max_restarts", "startlimitburst"],
        &["backoff_initial", "backoff_max"],
        "a worker that crashes is started again for ever, with longer and longer waits",
    ),
    same(
        &["restart_delay", "exp_backoff_restart_delay", "restartsec"],
        &["backoff_initial"],
    ),
    same(&["min_uptime", "startsecs"], &["backoff_reset"]),
    // What is written down.
    same(&["loglevel"], &["[supervisor].log_level"]),
    same(
        &[
            "errorlog",
            "error_log",
            "error_file",
            "logfile",
            "log_file",
            "logto",
        ],
        &["[supervisor].log"],
    ),
    same(
        &[
            "accesslog",
            "access_logfile",
            "access_log_format",
            "access_logformat",
            "access.log",
        ],
        &["access_log"],
    ),
    but(
        &["stats", "stats_server", "pm.status_path", "statsd_host"],
        &["[supervisor].admin"],
        "metrics and the status are there",
    ),
    // What prefork does without.
    but(
        &["pidfile", "pid_file"],
        &[],
        "prefork writes no such file; `prefork status` shows the pid",
    ),
    but(
        &["daemon", "daemonize"],
        &[],
        "prefork stays in the foreground; a service manager puts it into the background",
    ),
    but(
        &["preload", "preload_app", "lazy_apps"],
        &[],
        "there is none: each worker starts its program by itself",
    ),
    but(
        &[
            "watch",
            "reload",
            "auto_reload",
            "autoreload",
            "py_autoreload",
        ],
        &[],
        "prefork does not watch files; `prefork reload` takes new ones",
    ),
];
