# prefork as a Nomad service. How the layers share the work is told in
# ../kubernetes/README.md; Nomad's `update` and `kill_timeout` stand for the
# Deployment's strategy and terminationGracePeriodSeconds.

job "prefork" {
  type = "service"

  group "web" {
    count = 2

    network {
      port "http" { to = 8080 }
      port "metrics" { to = 9919 }
    }

    # An allocation goes only after its successor is healthy.
    update {
      max_parallel     = 1
      canary           = 1
      auto_promote     = true
      auto_revert      = true
      min_healthy_time = "5s"
      healthy_deadline = "2m"
    }

    service {
      name     = "prefork"
      port     = "http"
      provider = "nomad"

      check {
        type     = "http"
        port     = "metrics"
        path     = "/readyz"
        interval = "2s"
        timeout  = "2s"
      }
    }

    service {
      name     = "prefork-metrics"
      port     = "metrics"
      provider = "nomad"
    }

    task "prefork" {
      driver = "docker"

      # The time between leaving the catalogue and SIGTERM.
      shutdown_delay = "5s"
      # drain_timeout and 10 s to stop those that did not finish.
      kill_signal  = "SIGTERM"
      kill_timeout = "40s"

      config {
        image           = "prefork"
        ports           = ["http", "metrics"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]

        mount {
          type   = "tmpfs"
          target = "/run/prefork"
          tmpfs_options { size = 16777216 }
        }
        mount {
          # The directory: a single file would stay the one that was there at
          # the start, as a change is a new file of the same name.
          type     = "bind"
          source   = "local/prefork"
          target   = "/etc/prefork"
          readonly = true
        }
      }

      template {
        destination = "local/prefork/prefork.toml"
        # A change starts no allocation anew: prefork reloads in place.
        change_mode = "script"
        change_script {
          command = "/prefork"
          args    = ["reload"]
          timeout = "60s"
        }
        data = <<-TOML
          [supervisor]
          admin = "0.0.0.0:9919"
          log = "/dev/stdout"

          [pool.web]
          workers = 2
          listen = ["0.0.0.0:8080"]
          drain_timeout = "30s"
        TOML
      }

      resources {
        cpu    = 2000
        memory = 512
      }
    }
  }
}
